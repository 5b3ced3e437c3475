//! Tables and columns with marks in their names, from the definition to the documents.

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

/// The graph's service reads views that have the names it knows; the pipeline captures the tables beneath.
async fn rename_tables(world: &World) {
    world
        .execute(
            r#"CREATE SCHEMA "my.schema";
            ALTER TABLE public.movie SET SCHEMA "my.schema";
            ALTER TABLE "my.schema".movie RENAME TO "a movie";
            ALTER TABLE "my.schema"."a movie" RENAME COLUMN id TO "{id}";
            CREATE VIEW public.movie AS SELECT "{id}" AS id, title, released, mpaa, runtime_min, distributor_id, genre_id,
                imdb_rating, imdb_votes, budget_usd, gross_usd FROM "my.schema"."a movie";
            ALTER TABLE public.movie_talent SET SCHEMA "my.schema";
            ALTER TABLE "my.schema".movie_talent RENAME TO "odd}""link";
            ALTER TABLE "my.schema"."odd}""link" RENAME COLUMN movie_id TO "odd}movie";
            CREATE VIEW public.movie_talent AS SELECT "odd}movie" AS movie_id, talent_id, role FROM "my.schema"."odd}""link""#,
        )
        .await;
}

fn rename_in_pipeline(world: &World) {
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let text = text
        .replace("- public.movie_talent", r#"- '"my.schema"."odd}""link"'"#)
        .replace("- public.movie\n", "- '\"my.schema\".\"a movie\"'\n")
        .replace(
            "    public.movie_talent: [{ type: Movie, id: \"{movie_id}\" }",
            r#"    '"my.schema"."odd}""link"': [{ type: Movie, id: '{"odd}movie"}' }"#,
        )
        .replace(
            "    public.movie: [{ type: Movie, id: \"{id}\" }]",
            r#"    '"my.schema".a movie': [{ type: Movie, id: '{"{id}"}' }]"#,
        );
    assert!(!text.contains("public.movie"), "{text}");
    std::fs::write(world.pipeline(), text).expect("the pipeline");
}

async fn on(pair: Pair) {
    let mut world = World::new("odd_names", pair, Own::default()).await;
    rename_tables(&world).await;
    // What the views are called is no table, which is said, with the tables.
    world.start();
    assert_eq!(world.ended().await, 1);
    let log = world.log();
    assert!(log.contains("public.movie: it is a view"), "{log}");
    assert!(log.replace('\\', "").contains(r#"in its place: "my.schema".a movie"#), "{log}");
    rename_in_pipeline(&world);
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world
        .execute(
            "UPDATE movie SET title = 'Renamed' WHERE id = 5; \
             DELETE FROM movie_talent WHERE movie_id = 7; UPDATE movie_talent SET movie_id = 7 WHERE movie_id = 9; \
             DELETE FROM movie WHERE id = 11; INSERT INTO movie (id, title) VALUES (99999, 'New'); \
             UPDATE talent SET name = 'Another' WHERE id = (SELECT talent_id FROM movie_talent WHERE movie_id = 7 LIMIT 1)",
        )
        .await;
    let index = world.index();
    world
        .until("the last change is searchable", async |address| {
            let document = client::get(address, &format!("/indexes/{index}/documents/99999")).await.unwrap_or_default();
            document["document"]["title"] == "New"
        })
        .await;
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
