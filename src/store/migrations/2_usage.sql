-- What was used of quotas, by period. `kind` is 'consumer', 'key' or 'subject'; `changed` is the number of the batch that
-- wrote the row last. Batches take the lock of their counter first, so their numbers become visible in their order.
CREATE TABLE edgeward_usage (
    plan_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    begins BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    used BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (kind, owner, plan_name, begins, ends)
);
CREATE INDEX edgeward_usage_changed ON edgeward_usage (changed);
CREATE INDEX edgeward_usage_ends ON edgeward_usage (ends);
INSERT INTO edgeward_state (name, value) VALUES ('usage', 0);

-- Without: what its consumer has.
ALTER TABLE edgeward_api_keys ADD COLUMN plan_name TEXT;
