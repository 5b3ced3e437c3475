-- Movies with keys of every kind: bigint on both sides of 2^53, uuid, text, int, and pairs.

CREATE TABLE distributor (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE genre (code text PRIMARY KEY, label text NOT NULL);
CREATE TABLE talent (id uuid PRIMARY KEY, name text NOT NULL, born date);
CREATE TABLE movie (
    id bigint PRIMARY KEY, title text NOT NULL, year int, score numeric(4, 1),
    distributor_id int REFERENCES distributor ON UPDATE CASCADE
);
CREATE TABLE movie_talent (
    movie_id bigint REFERENCES movie ON UPDATE CASCADE ON DELETE CASCADE,
    talent_id uuid REFERENCES talent ON UPDATE CASCADE ON DELETE CASCADE,
    role text NOT NULL,
    PRIMARY KEY (movie_id, talent_id)
);
CREATE TABLE movie_genre (
    movie_id bigint REFERENCES movie ON UPDATE CASCADE ON DELETE CASCADE,
    genre_code text REFERENCES genre ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (movie_id, genre_code)
);
CREATE TABLE award (
    id int PRIMARY KEY, title text NOT NULL,
    movie_id bigint NOT NULL REFERENCES movie ON UPDATE CASCADE ON DELETE CASCADE,
    talent_id uuid REFERENCES talent ON UPDATE CASCADE ON DELETE SET NULL
);
CREATE TABLE screening (
    id bigint PRIMARY KEY,
    movie_id bigint NOT NULL REFERENCES movie ON UPDATE CASCADE ON DELETE CASCADE,
    starts_at timestamptz NOT NULL, hall text NOT NULL
);
CREATE INDEX ON movie (distributor_id);
CREATE INDEX ON movie_talent (talent_id);
CREATE INDEX ON movie_genre (genre_code);
CREATE INDEX ON award (movie_id);
CREATE INDEX ON award (talent_id);
CREATE INDEX ON screening (movie_id);
CREATE INDEX ON screening (starts_at);

-- A document shows the first of them only, so what it does not show can still change it.
ALTER TABLE screening REPLICA IDENTITY FULL;
ALTER TABLE award REPLICA IDENTITY FULL;

INSERT INTO distributor SELECT n, 'Distributor ' || n FROM generate_series(1, 20) n;
INSERT INTO genre SELECT 'g' || n, 'Genre ' || n FROM generate_series(1, 8) n;
INSERT INTO genre VALUES ('Sci-Fi / Fantasy', 'Both'), ('"quoted" \', 'Odd'), ('ünï', 'Beyond ASCII');
INSERT INTO talent SELECT md5('talent ' || n)::uuid, 'Talent ' || n, date '1940-01-01' + n * 50
    FROM generate_series(1, 150) n;
INSERT INTO movie
    SELECT 9007199254740900 + n, 'Movie ' || n, 1950 + n % 70, (n % 100) / 10.0,
        CASE WHEN n % 11 <> 0 THEN 1 + n % 20 END
    FROM generate_series(1, 250) n;
INSERT INTO movie VALUES (1, 'First', 1999, 7.5, 3), (-5, 'Below zero', NULL, NULL, 3), (-9007199254740993, 'Far below', 2001, 1, NULL);
INSERT INTO movie_talent
    SELECT 9007199254740900 + n, md5('talent ' || 1 + (n * 7 + k * 13) % 150)::uuid, (ARRAY['director', 'cast', 'cast'])[1 + k]
    FROM generate_series(1, 250) n, generate_series(0, 2) k WHERE n % 13 <> 0;
INSERT INTO movie_genre
    SELECT 9007199254740900 + n, 'g' || 1 + (n + k) % 8 FROM generate_series(1, 250) n, generate_series(0, 1) k;
INSERT INTO movie_genre SELECT 1, code FROM genre;
INSERT INTO award
    SELECT n, 'Award ' || n, 9007199254740901 + n % 40, CASE WHEN n % 5 <> 0 THEN md5('talent ' || 1 + n % 30)::uuid END
    FROM generate_series(40, 120) n;
INSERT INTO award SELECT 1000 + n, 'Award ' || n, 1, NULL FROM generate_series(1, 25) n;
INSERT INTO screening
    SELECT n * 10 + k, 9007199254740900 + n, timestamptz '2026-01-01 18:00Z' + (n * 3 + k * 5) * interval '1 hour', 'Hall ' || 1 + k % 3
    FROM generate_series(1, 250) n, generate_series(0, 5) k WHERE k < n % 7;
INSERT INTO screening
    SELECT 9007199254740990 + n, 1, timestamptz '2026-02-01 18:00Z' + n * interval '1 hour', 'Hall 1' FROM generate_series(1, 12) n;

-- What the truth of a server with global ids is computed with; no server reads it as a field, for it takes no row.
CREATE SCHEMA truth;
CREATE FUNCTION truth.global_id(type text, key json) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT translate(encode(convert_to('["' || type || '",' || key || ']', 'UTF8'), 'base64'), E'\n', '') $$;
