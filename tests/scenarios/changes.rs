//! Changes of every kind, on every pair of transport and store.

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

/// Runs one scenario on the embedded pair and on Kafka with Elasticsearch.
macro_rules! on_both_pairs {
    ($($(#[$doc:meta])* async fn $name:ident($world:ident: &mut World) $body:block)*) => { $(
        mod $name {
            use super::*;

            $(#[$doc])*
            async fn scenario($world: &mut World) $body

            async fn on(pair: Pair) {
                let mut world = World::new(concat!(stringify!($name)), pair, Own::default()).await;
                world.start();
                world.until_documents(MOVIES).await;
                assert_eq!(world.said("not open yet"), 0, "a start is no trouble of the index: {}", world.log());
                scenario(&mut world).await;
                world.assert_converged().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                on(Pair::Embedded).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn kafka_elasticsearch() {
                on(Pair::KafkaElasticsearch).await;
            }
        }
    )* };
}

/// Waits until the documents affected by the last changes were printed.
async fn until_printed(world: &mut World, needle: &str) {
    let out = world.folder.path().to_owned();
    let needle = needle.to_owned();
    world
        .until("a change is printed", async |_| {
            let printed = std::fs::read_to_string(out.join("run-1.out")).unwrap_or_default();
            printed.contains(&needle)
        })
        .await;
}

on_both_pairs! {
    /// Changes that the log never had (someone took the table out of the publication): a reindex finds what changed, and what
    /// is gone.
    async fn reindex(world: &mut World) {
        let publication: String =
            world.sql.query_one("SELECT pubname::text FROM pg_publication", &[]).await.expect("a publication").get(0);
        world.execute(&format!("ALTER PUBLICATION {publication} DROP TABLE movie, movie_talent, screening")).await;
        world.execute("DELETE FROM movie WHERE id IN (11, 1100); UPDATE movie SET title = 'Unheard of' WHERE id = 12").await;
        world.execute(&format!("ALTER PUBLICATION {publication} ADD TABLE movie, movie_talent, screening")).await;
        world.execute("UPDATE movie SET title = 'Heard of' WHERE id = 13").await;
        let index = world.index();
        world.until("the captured change is searchable", async |address| {
            let document = client::get(address, &format!("/indexes/{index}/documents/13")).await.unwrap_or_default();
            document["document"]["title"] == "Heard of"
        }).await;
        let address = world.address().expect("it runs");
        let gone = client::get(&address, &format!("/indexes/{index}/documents/11")).await.unwrap_or_default();
        assert_eq!(gone["document"]["id"], "11", "the loss that this scenario needs did not happen");
        let pipeline = world.pipeline().to_str().expect("a path").to_owned();
        let (code, out, err) = world.run(&["reindex", &pipeline]).await;
        assert_eq!(code, 0, "{out}{err}");
        // When the command has ended, the index is right: nothing is waited for.
        let repaired = client::get(&address, &format!("/indexes/{index}/documents/12")).await.unwrap_or_default();
        assert_eq!(repaired["document"]["title"], "Unheard of");
        assert!(client::get(&address, &format!("/indexes/{index}/documents/11")).await.is_none_or(|d| d["document"].is_null()));
    }

    /// A root's own columns, a leaf's name (hundreds of documents, each built once), and a change that nobody can see.
    async fn rename(world: &mut World) {
        world.execute("UPDATE movie SET title = 'Renamed', imdb_votes = 7 WHERE id = 5").await;
        let row = world.sql.query_one(
            "SELECT distributor_id, count(*) FROM movie WHERE distributor_id IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 1", &[],
        ).await.expect("a distributor");
        let (distributor, movies): (i32, i64) = (row.get(0), row.get(1));
        world.assert_converged().await;
        let fetched = world.faults().movies_fetched();
        world.execute(&format!("UPDATE distributor SET name = name || ' (renamed)' WHERE id = {distributor}")).await;
        until_printed(world, &format!("{movies} documents: {movies} built")).await;
        world.assert_converged().await;
        // Each is fetched to be built, and once more to be settled, unless it was built so late that this settled it. What was
        // changed before may be settled meanwhile.
        let fetched = world.faults().movies_fetched() - fetched;
        let movies = u64::try_from(movies).expect("a count");
        assert!((movies..=2 * movies + 1).contains(&fetched), "{movies} documents were fetched {fetched} times");
        let movie: i32 = world.sql.query_one("SELECT max(movie_id) FROM movie_talent", &[]).await.expect("a movie").get(0);
        let index = world.index();
        let stamp = async |address: &str| {
            let document = client::get(address, &format!("/indexes/{index}/documents/{movie}")).await.unwrap_or_default();
            document["_stamp"].clone()
        };
        world.assert_converged().await;
        let address = world.address().expect("it runs");
        let before = stamp(&address).await;
        assert!(!before.is_null());
        world.execute(&format!("UPDATE movie_talent SET role = 'nobody asks for this' WHERE movie_id = {movie}")).await;
        let out = world.folder.path().join("run-1.out");
        world.until("a change of the join table is printed", async |_| {
            let printed = std::fs::read_to_string(&out).unwrap_or_default();
            printed.lines().any(|line| line.contains("movie_talent") && line.contains("unchanged") && !line.contains("built"))
        }).await;
        world.assert_converged().await;
        assert_eq!(stamp(&address).await, before, "it was written");
    }

    /// Edges by a join table: a new one, one moved to another parent, one removed.
    async fn join(world: &mut World) {
        world.execute("INSERT INTO talent VALUES (900001, 'A New Director')").await;
        world.execute("INSERT INTO movie_talent (movie_id, talent_id) VALUES (10, 900001), (11, 900001)").await;
        world.execute("UPDATE movie_talent SET movie_id = 12 WHERE movie_id = 10 AND talent_id = 900001").await;
        world.execute("DELETE FROM movie_talent WHERE movie_id = 11").await;
        world.execute("UPDATE talent SET name = 'Renamed Director' WHERE id = 900001").await;
    }

    /// Children with a key of their own: added, moved to another parent by their foreign key, deleted; a leaf two edges away.
    async fn child(world: &mut World) {
        world.execute("INSERT INTO venue VALUES (1, 'Odeon', 'Leeds'), (2, 'Rex', 'Paris')").await;
        world.execute("INSERT INTO screening SELECT i, 20 + i % 3, 1 + i % 2, '2026-01-01T20:00:00Z' FROM generate_series(1, 30) i").await;
        world.execute("UPDATE screening SET movie_id = 40 WHERE id = 1").await;
        world.execute("UPDATE screening SET movie_id = NULL WHERE id = 2").await;
        world.execute("DELETE FROM screening WHERE id = 3").await;
        world.execute("UPDATE venue SET name = 'Odeon Luxe' WHERE id = 1").await;
        world.execute("DELETE FROM venue WHERE id = 2").await;
    }

    /// An edge is moved, and its new target renamed before the index was refreshed.
    async fn moved_target(world: &mut World) {
        world.execute("INSERT INTO venue VALUES (1, 'First', 'A'), (2, 'Second', 'B')").await;
        for round in 0..20 {
            let movie = 50 + round;
            world.execute(&format!("INSERT INTO screening VALUES ({round}, {movie}, 1, now())")).await;
            world.execute(&format!("UPDATE screening SET venue_id = 2 WHERE id = {round}")).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            world.execute(&format!("UPDATE venue SET name = 'Second {round}' WHERE id = 2")).await;
        }
    }

    /// Roots deleted, and the same id created again at once; a key changed; a new root.
    async fn root(world: &mut World) {
        world.execute("DELETE FROM movie WHERE id BETWEEN 100 AND 110").await;
        world.execute("INSERT INTO movie (id, title) VALUES (105, 'Back again')").await;
        for _ in 0..5 {
            world.execute("DELETE FROM movie WHERE id = 106").await;
            world.execute("INSERT INTO movie (id, title) VALUES (106, 'Back again')").await;
        }
        world.execute("UPDATE movie SET id = 900107 WHERE id = 105").await;
        world.execute("INSERT INTO movie (id, title, distributor_id) VALUES (900108, 'New', 1)").await;
    }

    /// One transaction that touches every table; one that is rolled back; one whose savepoint is.
    async fn transaction(world: &mut World) {
        world.execute(
            "BEGIN; INSERT INTO distributor VALUES (900001, 'D'); INSERT INTO genre VALUES (900001, 'G');
             INSERT INTO talent VALUES (900001, 'T'); INSERT INTO venue VALUES (900001, 'V', 'C');
             INSERT INTO movie (id, title, distributor_id, genre_id) VALUES (900001, 'M', 900001, 900001);
             INSERT INTO movie_talent (movie_id, talent_id) VALUES (900001, 900001);
             INSERT INTO screening VALUES (900001, 900001, 900001, now());
             UPDATE movie SET genre_id = 900001 WHERE id BETWEEN 200 AND 260; DELETE FROM movie WHERE id = 261; COMMIT",
        ).await;
        world.execute("BEGIN; UPDATE movie SET title = 'never'; ROLLBACK").await;
        world.execute("BEGIN; SAVEPOINT s; UPDATE movie SET title = 'never'; ROLLBACK TO s; DELETE FROM genre WHERE id = 1; COMMIT").await;
    }

    /// Tables emptied.
    async fn truncate(world: &mut World) {
        world.execute("INSERT INTO venue VALUES (1, 'V', 'C'); INSERT INTO screening SELECT i, i, 1, now() FROM generate_series(1, 50) i").await;
        until_printed(world, "public.screening").await;
        world.execute("TRUNCATE screening").await;
        world.execute("TRUNCATE movie_talent").await;
    }

    /// Three thousand changes of roots in autocommit, and leaves renamed in between.
    async fn burst(world: &mut World) {
        for i in 1..=3000 {
            world.execute(&format!("UPDATE movie SET imdb_votes = {i} WHERE id = {}", 1 + i * 7 % (MOVIES - 1))).await;
            if i % 100 == 0 {
                world.execute(&format!("UPDATE talent SET name = 'T{i}' WHERE id = {}", i / 100)).await;
            }
        }
    }
}

/// OpenSearch behaves as Elasticsearch does: a walk through the kinds of changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_opensearch() {
    let mut world = World::new("os", Pair::KafkaOpenSearch, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world
        .execute("UPDATE movie SET title = 'Renamed' WHERE id = 5; UPDATE distributor SET name = 'D' WHERE id = 3")
        .await;
    world.execute("DELETE FROM movie WHERE id = 6; DELETE FROM movie_talent WHERE movie_id = 7").await;
    world.assert_converged().await;
}

/// Changes of every kind while the first build is still running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_the_first_build() {
    for pair in [Pair::Embedded, Pair::KafkaElasticsearch] {
        let mut world = World::new("first", pair, Own::default()).await;
        world.faults().set_delay(std::time::Duration::from_millis(300));
        world.start();
        let path = format!("/indexes/{}", world.index());
        world
            .until("the first documents are there", async |address| {
                client::get(address, &path).await.is_some_and(|status| status["documents"].as_u64() > Some(0))
            })
            .await;
        for i in 1..=100 {
            world
                .execute(&format!(
                    "UPDATE movie SET title = 'During {i}' WHERE id = {};
                 DELETE FROM movie WHERE id = {}; INSERT INTO movie (id, title, distributor_id) VALUES ({}, 'New', {});
                 UPDATE distributor SET name = 'D{i}' WHERE id = {}; UPDATE talent SET name = 'T{i}' WHERE id = {}",
                    i * 30,
                    i * 31,
                    900_000 + i,
                    i,
                    i,
                    i * 3
                ))
                .await;
        }
        let address = world.address().expect("it runs");
        let status = client::get(&address, &path).await.expect("a status");
        assert!(
            status["documents"].as_u64() < Some(MOVIES),
            "the first build was over before the last change: {status}"
        );
        world.faults().set_delay(std::time::Duration::ZERO);
        world.assert_converged().await;
    }
}
