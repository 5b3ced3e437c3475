-- The movie studio's tables: what the demo's GraphQL service reads and what the pipeline captures.
-- Every statement may run again on a database that has the tables already.

CREATE TABLE IF NOT EXISTS public.distributor (
    id   int PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE IF NOT EXISTS public.genre (
    id   int PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE IF NOT EXISTS public.talent (
    id   int PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE IF NOT EXISTS public.movie (
    id             int PRIMARY KEY,
    title          text NOT NULL,
    released       date,
    mpaa           text CHECK (mpaa IN ('G', 'PG', 'PG-13', 'R', 'NC-17', 'Not Rated', 'Open')),
    runtime_min    int,
    distributor_id int REFERENCES public.distributor ON DELETE SET NULL,
    genre_id       int REFERENCES public.genre ON DELETE SET NULL,
    imdb_rating    numeric(3, 1),
    imdb_votes     int,
    budget_usd     bigint,
    gross_usd      bigint
);
CREATE INDEX IF NOT EXISTS movie_distributor_id ON public.movie (distributor_id);
CREATE INDEX IF NOT EXISTS movie_genre_id ON public.movie (genre_id);

CREATE TABLE IF NOT EXISTS public.movie_talent (
    movie_id  int NOT NULL REFERENCES public.movie ON DELETE CASCADE,
    talent_id int NOT NULL REFERENCES public.talent ON DELETE CASCADE,
    role      text,
    PRIMARY KEY (movie_id, talent_id)
);
CREATE INDEX IF NOT EXISTS movie_talent_talent_id ON public.movie_talent (talent_id);

-- The last two are empty at first. A screening is a child with a key of its own; a venue is two edges from a movie.

CREATE TABLE IF NOT EXISTS public.venue (
    id   int PRIMARY KEY,
    name text NOT NULL,
    city text
);

CREATE TABLE IF NOT EXISTS public.screening (
    id        int PRIMARY KEY,
    movie_id  int REFERENCES public.movie ON DELETE CASCADE,
    venue_id  int REFERENCES public.venue ON DELETE SET NULL,
    starts_at timestamptz
);
CREATE INDEX IF NOT EXISTS screening_movie_id ON public.screening (movie_id);
CREATE INDEX IF NOT EXISTS screening_venue_id ON public.screening (venue_id);
