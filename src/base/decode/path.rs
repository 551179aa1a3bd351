//! Configuration paths as messages show them: `routes[2].request.set."X-Tenant"`.

/// Appends `.key`, quoted where TOML would quote it.
pub fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    {
        path.push_str(key);
    } else {
        path.push_str(&super::quote(key));
    }
}

/// Appends `[index]`.
pub fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(itoa::Buffer::new().format(index));
    path.push(']');
}
