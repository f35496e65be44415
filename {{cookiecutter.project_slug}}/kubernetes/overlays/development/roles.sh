psql --username postgres --dbname db --set ON_ERROR_STOP=1 --quiet <<'END'
\set owner_password `cat /run/secrets/migration_password`
\set app_password `cat /run/secrets/database_password`
SELECT format('CREATE ROLE %I', name) FROM (VALUES ('owner'), ('app')) AS roles (name)
WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE owner LOGIN PASSWORD :'owner_password';
ALTER ROLE app LOGIN PASSWORD :'app_password';
ALTER DATABASE db OWNER TO owner;
ALTER SCHEMA public OWNER TO owner;
SELECT format('ALTER TABLE public.%I OWNER TO owner', tablename) FROM pg_tables WHERE schemaname = 'public' \gexec
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO app;
# {% if cookiecutter.observability %}
\set observer_password `cat /run/secrets/observer_password`
SELECT 'CREATE ROLE observer' WHERE to_regrole('observer') IS NULL \gexec
ALTER ROLE observer LOGIN PASSWORD :'observer_password';
GRANT pg_monitor TO observer;
# {% endif %}
END
