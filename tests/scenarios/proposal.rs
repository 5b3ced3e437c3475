//! A newcomer's walk: a pipeline that is proposed, checked and run without an edit; and ids that do not fit, which are told before a
//! first build.

use crate::client;
use crate::world::{ALL, MOVIES, Own, Pair, World};

impl World {
    /// Puts a proposed pipeline in the place of this world's, under this world's names.
    pub fn adopt(&self, folder: &std::path::Path) {
        self.adopt_as(folder, "${STUDIO_URL}");
    }

    /// The same, with another text in the place of the database's URL.
    pub fn adopt_as(&self, folder: &std::path::Path, url: &str) {
        let text = std::fs::read_to_string(folder.join("pipeline.yaml")).expect("a pipeline");
        let text = text
            .replace("pipeline: movies-search", &format!("pipeline: {}", self.name))
            .replace("${DATABASE_URL}", url)
            .replace("  movies: {", &format!("  {}: {{", self.index()));
        let settings = "http: { listen: \"${TRIBUTARY_LISTEN}\" }\ndata: \"${TRIBUTARY_DATA}\"\n";
        std::fs::write(self.pipeline(), text + settings).expect("written");
        std::fs::copy(folder.join("movies.graphql"), self.folder.path().join("movies.graphql")).expect("copied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proposed_runs_as_it_is() {
    let mut world = World::new("init", Pair::Embedded, Own::default()).await;
    let folder = world.folder.path().join("proposed");
    let to = folder.to_str().expect("a path").to_owned();
    let arguments =
        ["init", "--graph", &world.graph_url(), "--source", &world.database_url(), "--root", "movie", "--folder", &to];
    let (code, out, err) = world.run(&arguments).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("it passes the check; rows and graph agree on ids"), "{out}{err}");
    let proposed = std::fs::read_to_string(folder.join("pipeline.yaml")).expect("a pipeline");
    assert!(!proposed.contains(&world.database_url()), "the database's URL is written:\n{proposed}");
    // Nothing is overwritten.
    let (code, _, err) = world.run(&arguments).await;
    assert!(code == 1 && err.contains("is there already"), "{code}: {err}");
    // What cannot be proposed from is told with what can be done, in the words of the command line.
    let source = world.database_url();
    let (code, _, err) = world.run(&["init", "--graph", "nonsense", "--source", &source, "--folder", "/nowhere"]).await;
    assert!(code == 1 && err.contains("--graph is no URL"), "{code}: {err}");
    world.adopt(&folder);
    world.start();
    world.until_documents(MOVIES).await;
    let row =
        "SELECT movie_id FROM movie_talent JOIN movie ON movie.id = movie_id WHERE distributor_id IS NOT NULL LIMIT 1";
    let id = world.sql.query_one(row, &[]).await.expect("a movie with talents").get::<_, i32>(0).to_string();
    world
        .execute(&format!(
            "UPDATE distributor SET name = 'Renamed' WHERE id = (SELECT distributor_id FROM movie WHERE id = {id}); \
             UPDATE talent SET name = 'Somebody Else' WHERE id IN (SELECT talent_id FROM movie_talent WHERE movie_id = {id})"
        ))
        .await;
    let index = world.index();
    world
        .until("both changes are in the document", async |address| {
            let document = client::documents(address, &index).await.unwrap_or_default().remove(&id).unwrap_or_default();
            let talents = document["talents"].as_array().cloned().unwrap_or_default();
            document["distributor"]["name"] == "Renamed"
                && !talents.is_empty()
                && talents.iter().all(|talent| talent["name"] == "Somebody Else")
        })
        .await;
}

/// A rule whose ids are the graph's for a part of the rows: at one end of the table, or in its midst, where none is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_a_part_of_the_rows_do_not_fit() {
    let mut world = World::of("part", Pair::Embedded, Own::default(), ALL).await;
    let path = world.pipeline().to_str().expect("a path").to_owned();
    world.execute("ALTER TABLE movie ADD COLUMN legacy int; ALTER TABLE movie REPLICA IDENTITY FULL").await;
    let but = |which: &str| format!("UPDATE movie SET legacy = CASE WHEN {which} THEN id + 1000000 ELSE id END");
    world.execute(&but("id > (SELECT max(id) - 100 FROM movie)")).await;
    world.edit_pipeline("type: Movie, id: \"{id}\" }]\n", "type: Movie, id: \"{legacy}\" }]\n");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 3, "{err}");
    for word in [
        "the graph knows 400 of 500 ids that the rule for Movie makes of rows of public.movie",
        "hidden: 30%",
        "^^^^^^^^",
    ] {
        assert!(err.contains(word), "{word}: {err}");
    }
    world.start();
    let code = world.ended().await;
    assert!(code == 1 && world.log().contains("the graph knows 400 of 500"), "{code}: {}", world.log());
    // Fewer may be hidden than are.
    world.edit_pipeline("  vertices:\n", "  types: { Movie: { hidden: 19% } }\n  vertices:\n");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert!(code == 3 && err.contains("and 19% of them may be hidden"), "{code}: {err}");
    world.edit_pipeline("hidden: 19%", "hidden: 20%");
    let (code, out, err) = world.run(&["check", &path]).await;
    assert!(code == 0 && out.contains("rows and graph agree on ids"), "{code}: {out}{err}");
    // Where nobody compares, nothing is said of it.
    world.edit_pipeline("  vertices:\n", "  probe: off\n  vertices:\n");
    let (code, out, err) = world.run(&["check", &path]).await;
    assert!(code == 0 && !out.contains("agree on ids"), "{code}: {out}{err}");
    world.edit_pipeline("  probe: off\n", "");
    // In the midst, the first build finds them, and does not count them as documents.
    world.edit_pipeline("hidden: 20%", "hidden: 2%");
    world.execute(&but("id BETWEEN 1001 AND 1200")).await;
    let gone: i64 =
        world.sql.query_one("SELECT count(*) FROM movie WHERE legacy <> id", &[]).await.expect("a count").get(0);
    world.start();
    world.until_documents(ALL - u64::try_from(gone).expect("a count")).await;
    let part = format!("roots of {}", world.index());
    world
        .until("health tells of the others", async |address| {
            let health = client::get(address, "/health").await.unwrap_or_default();
            let note = health["parts"][&part]["note"].as_str().unwrap_or_default().to_owned();
            note.contains(&format!("did not know {gone}")) && note.contains("Movie: { hidden: … }")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_do_not_fit_are_told_with_what_would() {
    let mut world = World::of("ids", Pair::Embedded, Own::default(), ALL).await;
    let path = world.pipeline().to_str().expect("a path").to_owned();
    let right = std::fs::read_to_string(world.pipeline()).expect("a pipeline");
    for (from, to) in [
        ("public.movie: [{ type: Movie, id: \"{id}\" }]", "public.movie: [{ type: Movie, id: \"Movie:{id}\" }]"),
        (
            "public.talent: [{ type: Talent, id: \"{id}\" }]",
            "public.talent: [{ type: Talent, id: \"{base64(json('Talent', id))}\" }]",
        ),
    ] {
        assert!(right.contains(from), "{right}");
        std::fs::write(world.pipeline(), right.replace(from, to)).expect("written");
        let (code, _, err) = world.run(&["check", &path]).await;
        assert!(
            code == 3 && err.contains("makes other ids than the graph has") && err.contains("asked: "),
            "{code}: {err}"
        );
        world.start();
        let code = world.ended().await;
        let said = world.log();
        assert!(code == 1 && said.contains("makes other ids than the graph has"), "{code}: {said}");
        assert!(!said.contains("documents built"), "{said}");
    }
    // A column that is not there is told by the check, not later.
    let from = "public.talent: [{ type: Talent, id: \"{id}\" }]";
    std::fs::write(world.pipeline(), right.replace(from, &from.replace("{id}", "{ident}"))).expect("written");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert!(code == 3 && err.contains("the column `ident`, which events do not have"), "{code}: {err}");
    // Whoever knows better says so.
    std::fs::write(world.pipeline(), right.clone()).expect("written");
    world.start();
    world.until_documents(ALL).await;
    world.assert_converged().await;
}
