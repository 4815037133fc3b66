-- Roles and extensions of Postgres. Its image runs this once, on an empty volume, as the superuser. To change a password later:
-- docker compose exec postgres psql -U postgres -c '\password NAME', with the NAME that compose.yaml begins with.
\getenv name POSTGRES_DB
\getenv database_password DATABASE_PASSWORD
\getenv monitoring_password MONITORING_PASSWORD

-- The service owns its database and nothing else: an injected statement reaches no file and no program.
CREATE ROLE :"name" LOGIN PASSWORD :'database_password';
ALTER DATABASE :"name" OWNER TO :"name";

-- The exporter reads statistics and no table.
CREATE ROLE monitoring LOGIN PASSWORD :'monitoring_password' CONNECTION LIMIT 5 IN ROLE pg_monitor;

-- The cost of each statement, where the server brings the module, as the official image does. Preloaded from the next
-- start on, which is the first with users.
SELECT count(*) > 0 AS has_module FROM pg_available_extensions WHERE name = 'pg_stat_statements' \gset
\if :has_module
    CREATE EXTENSION pg_stat_statements;
    ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements';
\endif

-- The superuser comes in by the container's own socket only, which asks for no password.
ALTER ROLE postgres PASSWORD NULL;
