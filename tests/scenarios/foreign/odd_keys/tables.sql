-- Keys that have more than one text somewhere: dates, texts that are filled up with blanks, decimals.

CREATE TABLE day (day date PRIMARY KEY, title text NOT NULL);
CREATE TABLE country (code char(4) PRIMARY KEY, name text NOT NULL);
CREATE TABLE screening (
    number numeric(12, 2) PRIMARY KEY,
    day date NOT NULL REFERENCES day ON UPDATE CASCADE ON DELETE CASCADE,
    country char(4) REFERENCES country ON UPDATE CASCADE,
    hall inet NOT NULL
);
CREATE INDEX ON screening (day);
CREATE INDEX ON screening (country);
ALTER TABLE screening REPLICA IDENTITY FULL;

INSERT INTO day SELECT date '2023-12-25' + n, 'Day ' || n FROM generate_series(1, 80) n;
INSERT INTO day VALUES ('0044-03-15 BC', 'The Ides of March'), ('1969-12-31', 'The day before the first');
INSERT INTO country VALUES ('DE', 'Germany'), ('FR', 'France'), ('LONG', 'As long as can be');
INSERT INTO screening
    SELECT n / 4.0, date '2023-12-26' + n % 80, (ARRAY['DE', 'FR', 'LONG', NULL])[1 + n % 4], inet '10.0.0.0' + n
    FROM generate_series(1, 200) n;
INSERT INTO screening VALUES (-1.50, '0044-03-15 BC', 'FR', '::1');
