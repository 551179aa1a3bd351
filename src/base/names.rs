//! Names people write, and what they probably meant.

/// The name in `known` nearest to `written`, if it is near enough to be a typing mistake.
///
/// Near enough: at most a third of the length changed (swapped neighbours count as one change), or one is the start
/// of the other.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lowered = written.to_ascii_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lowered, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| {
            let longest = written.chars().count().max(name.chars().count());
            *distance <= (longest / 3).max(1)
                || (written.len() >= 3
                    && (name.starts_with(written) || written.starts_with(name))
                    && name.len() >= 3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_typing_mistakes_and_nothing_else() {
        let known = ["upstream", "respond", "redirect", "timeout"];
        assert_eq!(nearest("upsteam", known), Some("upstream"));
        assert_eq!(nearest("Redirct", known), Some("redirect"));
        assert_eq!(nearest("timeouts", known), Some("timeout"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
