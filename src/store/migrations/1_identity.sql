-- Counts changes: readers ask what came after the number they know. Every writer takes the row's lock first, so numbers
-- become visible in their order.
CREATE TABLE edgeward_state (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO edgeward_state (name, value) VALUES ('changes', 0);

CREATE TABLE edgeward_users (
    name TEXT PRIMARY KEY,
    password TEXT NOT NULL,
    roles TEXT NOT NULL,
    disabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

-- Removed rows stay, so that readers hear of it.
CREATE TABLE edgeward_consumers (
    name TEXT PRIMARY KEY,
    group_names TEXT NOT NULL,
    plan_name TEXT,
    removed BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    changed BIGINT NOT NULL UNIQUE
);

-- Without consumer: no longer anybody's.
CREATE TABLE edgeward_subjects (
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    consumer TEXT,
    changed BIGINT NOT NULL UNIQUE,
    PRIMARY KEY (provider, subject)
);
CREATE INDEX edgeward_subjects_consumer ON edgeward_subjects (consumer);

CREATE TABLE edgeward_api_keys (
    id TEXT PRIMARY KEY,
    consumer TEXT NOT NULL,
    hash {bytes} NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used BIGINT,
    changed BIGINT NOT NULL UNIQUE
);
CREATE INDEX edgeward_api_keys_consumer ON edgeward_api_keys (consumer);

CREATE TABLE edgeward_families (
    id TEXT PRIMARY KEY,
    user_name TEXT NOT NULL,
    provider TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX edgeward_families_user ON edgeward_families (user_name);
CREATE INDEX edgeward_families_expiry ON edgeward_families (expires_at);

CREATE TABLE edgeward_refresh_tokens (
    hash {bytes} PRIMARY KEY,
    family TEXT NOT NULL REFERENCES edgeward_families (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX edgeward_refresh_tokens_family ON edgeward_refresh_tokens (family);
CREATE INDEX edgeward_refresh_tokens_expiry ON edgeward_refresh_tokens (expires_at);

-- `kind` is 'token' (`value` is a jti) or 'subject'; an empty provider stands for every one.
CREATE TABLE edgeward_revocations (
    kind TEXT NOT NULL,
    provider TEXT NOT NULL,
    value TEXT NOT NULL,
    issued_before BIGINT NOT NULL,
    kept_until BIGINT NOT NULL,
    changed BIGINT NOT NULL UNIQUE,
    PRIMARY KEY (kind, provider, value)
);
CREATE INDEX edgeward_revocations_end ON edgeward_revocations (kept_until);
