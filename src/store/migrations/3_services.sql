-- Services that are served as routes. Whoever changes rows, by whatever means, is noticed: triggers count it.
CREATE TABLE edgeward_services (
    name TEXT NOT NULL PRIMARY KEY,
    path TEXT NOT NULL,
    methods TEXT NOT NULL DEFAULT '[]',
    hosts TEXT NOT NULL DEFAULT '[]',
    endpoints TEXT NOT NULL,
    roles TEXT NOT NULL DEFAULT '[]',
    enabled BOOLEAN NOT NULL DEFAULT TRUE,
    created_at BIGINT NOT NULL DEFAULT {now},
    changed_at BIGINT NOT NULL DEFAULT {now}
);
INSERT INTO edgeward_state (name, value) VALUES ('services', 0);
--{sqlite}
CREATE TRIGGER edgeward_services_added AFTER INSERT ON edgeward_services BEGIN
    UPDATE edgeward_state SET value = value + 1 WHERE name = 'services';
END;
CREATE TRIGGER edgeward_services_altered AFTER UPDATE ON edgeward_services BEGIN
    UPDATE edgeward_state SET value = value + 1 WHERE name = 'services';
END;
CREATE TRIGGER edgeward_services_removed AFTER DELETE ON edgeward_services BEGIN
    UPDATE edgeward_state SET value = value + 1 WHERE name = 'services';
END;
--{postgres}
-- With the rights of who made it: whoever may write services need not know the counter. So it looks into this schema
-- only, not into one of the caller's, and last where temporary tables are.
CREATE FUNCTION edgeward_services_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE edgeward_state SET value = value + 1 WHERE name = 'services';
    PERFORM pg_notify('edgeward_services', '');
    RETURN NULL;
END $$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION edgeward_services_changed() SET search_path = pg_catalog, %I, pg_temp', current_schema());
END $$;
CREATE TRIGGER edgeward_services_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON edgeward_services
    FOR EACH STATEMENT EXECUTE FUNCTION edgeward_services_changed();
