//! The service against a real PostgreSQL: what it answers, and what its faults do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use movie_graph::{Faults, LoadOptions, Poison, Service, Settings, load};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// A database of its own with a service over it.
struct Studio {
    url: String,
    sql: Client,
    service: Service,
    http: reqwest::Client,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Creates an empty database and returns its URL.
async fn database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = std::env::var("TRIBUTARY_TEST_POSTGRES")
        .expect("TRIBUTARY_TEST_POSTGRES names no PostgreSQL: run the tests with `./x test`");
    let name = format!("movie_graph_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let server = server.trim_end_matches('/');
    let client = connect(&format!("{server}/postgres")).await;
    client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    format!("{server}/{name}")
}

fn settings(url: &str) -> Settings {
    Settings { database_url: url.to_owned(), listen: "127.0.0.1:0".parse().unwrap(), pool_size: 4 }
}

impl Studio {
    async fn open() -> Self {
        let url = database().await;
        load(&url, LoadOptions::default()).await.unwrap();
        let service = Service::start(settings(&url)).await.unwrap();
        Self { sql: connect(&url).await, url, service, http: reqwest::Client::new() }
    }

    async fn post(&self, query: &str, variables: Value) -> reqwest::Response {
        let body = json!({ "query": query, "variables": variables });
        self.http.post(self.service.url()).json(&body).send().await.unwrap()
    }

    async fn answer(&self, query: &str, variables: Value) -> Value {
        self.post(query, variables).await.json().await.unwrap()
    }

    /// The data of a query that must succeed.
    async fn data(&self, query: &str) -> Value {
        let mut answer = self.answer(query, json!({})).await;
        assert_eq!(answer.get("errors"), None, "{answer}");
        answer["data"].take()
    }

    async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    fn faults(&self) -> Faults {
        self.service.faults()
    }
}

#[tokio::test]
async fn loading_fills_once_and_shares_distributors_among_copies() {
    let url = database().await;
    let report = load(&url, LoadOptions { copies: 3, ..LoadOptions::default() }).await.unwrap();
    assert!(report.filled);
    assert_eq!((report.movies, report.talents), (3 * 3_201, 3 * 550));
    assert_eq!((report.distributors, report.genres), (174, 12));
    let again = load(&url, LoadOptions { copies: 1, ..LoadOptions::default() }).await.unwrap();
    assert!(!again.filled);
    assert_eq!(again.movies, report.movies);

    let sql = connect(&url).await;
    let count = async |condition: &str| -> i64 {
        let statement = format!("SELECT count(*) FROM movie m JOIN distributor d ON d.id = distributor_id {condition}");
        sql.query_one(&statement, &[]).await.unwrap().get(0)
    };
    assert_eq!(count("WHERE d.name = 'Warner Bros.'").await, 3 * 318);
    assert_eq!(count("WHERE d.name = 'Warner Bros.' AND m.id < 10000").await, 318);
    assert!(load(&url, LoadOptions { copies: 0, ..LoadOptions::default() }).await.is_err());
}

#[tokio::test]
async fn movies_are_aligned_with_the_ids_and_carry_every_field_and_edge() {
    let studio = Studio::open().await;
    studio
        .run(
            "INSERT INTO venue VALUES (1, 'Odeon', 'Berlin'), (2, 'Rex', NULL);
             INSERT INTO screening VALUES (12, 1, 2, '2026-05-20 21:30:00.25+02'), (11, 1, NULL, NULL)",
        )
        .await;
    let query = "query($ids: [ID!]!) { movies(ids: $ids) { __typename id title released mpaa runtimeMin imdbRating \
                 imdbVotes budgetUsd grossUsd distributor { name } genre { name } talents { name } \
                 screenings { id startsAt movie { id } venue { id name city screenings { id } } } } }";
    let answer = studio.answer(query, json!({ "ids": ["2", "999999", "x", "1", "2", "01"] })).await;
    assert_eq!(answer.get("errors"), None, "{answer}");
    let movies = answer["data"]["movies"].as_array().unwrap();
    let ids: Vec<&Value> = movies.iter().map(|movie| &movie["id"]).collect();
    assert_eq!(json!(ids), json!(["2", null, null, "1", "2", null]));
    assert_eq!(
        movies[3],
        json!({
            "__typename": "Movie", "id": "1", "title": "The Land Girls", "released": "1998-06-12", "mpaa": "R",
            "runtimeMin": null, "imdbRating": 6.1, "imdbVotes": 1071, "budgetUsd": 8_000_000, "grossUsd": 146_083,
            "distributor": { "name": "Gramercy" }, "genre": null, "talents": [],
            "screenings": [
                { "id": "11", "startsAt": null, "movie": { "id": "1" }, "venue": null },
                {
                    "id": "12", "startsAt": "2026-05-20T19:30:00.250000Z", "movie": { "id": "1" },
                    "venue": { "id": "2", "name": "Rex", "city": null, "screenings": [{ "id": "12" }] },
                },
            ],
        })
    );
    assert_eq!(studio.faults().movies_fetched(), 3);
    assert_eq!(studio.faults().requests(), 1);
}

#[tokio::test]
async fn every_rating_of_the_data_is_a_value_of_the_enumeration() {
    let studio = Studio::open().await;
    let rows = studio.sql.query("SELECT min(id), mpaa FROM movie GROUP BY mpaa ORDER BY mpaa", &[]).await.unwrap();
    let mut seen = Vec::new();
    for row in rows {
        let data = studio.data(&format!("{{ movie(id: {}) {{ mpaa }} }}", row.get::<_, i32>(0))).await;
        seen.push((row.get::<_, Option<String>>(1), data["movie"]["mpaa"].clone()));
    }
    seen.sort_by_key(|(text, _)| text.clone());
    let expected = json!([
        [null, null],
        ["G", "G"],
        ["NC-17", "NC_17"],
        ["Not Rated", "NOT_RATED"],
        ["Open", "OPEN"],
        ["PG", "PG"],
        ["PG-13", "PG_13"],
        ["R", "R"],
    ]);
    assert_eq!(json!(seen), expected);
}

#[tokio::test]
async fn parents_are_reached_by_inverse_edges_and_lists_are_in_the_order_of_ids() {
    let studio = Studio::open().await;
    let spielberg = "SELECT t.id, array_agg(movie_id ORDER BY movie_id) FROM talent t JOIN movie_talent \
                     ON t.id = talent_id WHERE name = 'Steven Spielberg' GROUP BY t.id";
    let row = studio.sql.query_one(spielberg, &[]).await.unwrap();
    let (talent, movies): (i32, Vec<i32>) = (row.get(0), row.get(1));
    assert_eq!(movies.len(), 23);
    let data = studio.data(&format!("{{ talents(ids: [{talent}, 0]) {{ movies {{ id }} }} }}")).await;
    let expected: Vec<Value> = movies.iter().map(|id| json!({ "id": id.to_string() })).collect();
    assert_eq!(data, json!({ "talents": [{ "movies": expected }, null] }));

    let data = studio
        .data("{ distributors(ids: [1, 2]) { id movies { distributor { id } } } genres(ids: [1]) { movies { genre { id } } } }")
        .await;
    for distributor in data["distributors"].as_array().unwrap() {
        let movies = distributor["movies"].as_array().unwrap();
        assert!(!movies.is_empty() && movies.iter().all(|movie| movie["distributor"]["id"] == distributor["id"]));
    }
    assert!(data["genres"][0]["movies"].as_array().unwrap().len() > 100);
}

#[tokio::test]
async fn a_committed_change_is_in_the_next_answer() {
    let studio = Studio::open().await;
    let query = "{ movie(id: 1) { title talents { id } distributor { name } } }";
    for round in 0..20 {
        studio
            .run(&format!(
                "UPDATE movie SET title = 'Round {round}' WHERE id = 1;
                 UPDATE distributor SET name = 'House {round}' WHERE id = (SELECT distributor_id FROM movie WHERE id = 1);
                 INSERT INTO talent VALUES ({id}, 'Somebody'); INSERT INTO movie_talent VALUES (1, {id}, 'director')",
                id = 5_000 + round
            ))
            .await;
        let movie = &studio.data(query).await["movie"];
        assert_eq!(movie["title"], format!("Round {round}"));
        assert_eq!(movie["distributor"]["name"], format!("House {round}"));
        assert_eq!(movie["talents"].as_array().unwrap().len(), round + 1);
    }
    studio.run("DELETE FROM distributor WHERE id = (SELECT distributor_id FROM movie WHERE id = 1)").await;
    assert_eq!(studio.data(query).await["movie"]["distributor"], Value::Null);
    studio.run("DELETE FROM movie WHERE id = 1").await;
    assert_eq!(studio.data(query).await["movie"], Value::Null);
}

#[tokio::test]
async fn pages_list_every_movie_once() {
    let studio = Studio::open().await;
    let query = "query($after: String) { allMovies(first: 500, after: $after) \
                 { edges { cursor node { id } } nodes { id } pageInfo { hasNextPage endCursor } } }";
    let (mut ids, mut after, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let page = studio.answer(query, json!({ "after": after })).await["data"]["allMovies"].take();
        let nodes = page["nodes"].as_array().unwrap();
        ids.extend(nodes.iter().map(|node| node["id"].as_str().unwrap().parse::<i32>().unwrap()));
        assert_eq!(page["edges"][0]["node"], nodes[0]);
        after = page["pageInfo"]["endCursor"].clone();
        assert_eq!(page["edges"][nodes.len() - 1]["cursor"], after);
        pages += 1;
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(pages, 7);
    assert_eq!(ids, (1..=3_201).collect::<Vec<i32>>());

    let data = studio.data("{ a: allMovies { nodes { id } } b: allMovies(first: 5000) { nodes { id } } }").await;
    assert_eq!(data["a"]["nodes"].as_array().unwrap().len(), 100);
    assert_eq!(data["b"]["nodes"].as_array().unwrap().len(), 1_000);
    let data = studio.data("{ allMovies(after: \"3201\") { nodes { id } pageInfo { hasNextPage endCursor } } }").await;
    assert_eq!(data, json!({ "allMovies": { "nodes": [], "pageInfo": { "hasNextPage": false, "endCursor": null } } }));
    for wrong in ["after: \"x\"", "first: -1"] {
        let answer = studio.answer(&format!("{{ allMovies({wrong}) {{ nodes {{ id }} }} }}"), json!({})).await;
        assert!(answer["errors"][0]["message"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn nodes_are_found_by_their_global_ids() {
    let studio = Studio::open().await;
    let ids = json!(["Genre:1", "Movie:7", "Movie:0", "Movie", "Nothing:1", "Movie:x", "Talent:1", "Venue:1"]);
    let query = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Movie { title } } }";
    let answer = studio.answer(query, json!({ "ids": ids })).await;
    assert_eq!(answer.get("errors"), None, "{answer}");
    let nodes = answer["data"]["nodes"].as_array().unwrap();
    let types: Vec<&Value> = nodes.iter().map(|node| &node["__typename"]).collect();
    assert_eq!(json!(types), json!(["Genre", "Movie", null, null, null, null, "Talent", null]));
    assert_eq!(nodes[1]["id"], "7");
    let data = studio.data("{ a: node(id: \"Distributor:1\") { id } b: node(id: \"1\") { id } }").await;
    assert_eq!(data, json!({ "a": { "id": "1" }, "b": null }));
}

#[tokio::test]
async fn a_failing_title_takes_only_its_own_movie_away() {
    let studio = Studio::open().await;
    studio.faults().fail_ids(vec!["2".to_owned(), "none".to_owned()]);
    let answer = studio.answer("{ movies(ids: [1, 2, 3]) { id title } }", json!({})).await;
    let movies = &answer["data"]["movies"];
    assert_eq!((&movies[0]["id"], &movies[1], &movies[2]["id"]), (&json!("1"), &Value::Null, &json!("3")));
    assert_eq!(answer["errors"].as_array().unwrap().len(), 1);
    assert_eq!(answer["errors"][0]["path"], json!(["movies", 1, "title"]));

    // Within a list whose items must not be null, the null rises to whoever holds the list.
    studio.run("INSERT INTO movie_talent VALUES (2, 1), (2, 2)").await;
    let answer = studio.answer("{ talents(ids: [1, 2, 3]) { id movies { title } } }", json!({})).await;
    let talents = &answer["data"]["talents"];
    assert_eq!((&talents[0], &talents[1], &talents[2]["id"]), (&Value::Null, &Value::Null, &json!("3")));
    studio.faults().fail_ids(Vec::new());
    studio.data("{ movies(ids: [1, 2, 3]) { id title } }").await;
}

#[tokio::test]
async fn a_query_for_too_many_roots_is_refused_without_data() {
    let studio = Studio::open().await;
    studio.faults().set_max_roots(2);
    let query = "query($ids: [ID!]!) { movies(ids: $ids) { id } }";
    let answer = studio.answer(query, json!({ "ids": ["1", "2", "3"] })).await;
    assert_eq!(answer["data"], Value::Null);
    assert!(answer["errors"][0]["message"].as_str().unwrap().starts_with("query is too complex"), "{answer}");
    assert_eq!(answer["errors"][0].get("path"), None);
    let answer = studio.answer(query, json!({ "ids": ["1", "2"] })).await;
    assert_eq!(answer["data"]["movies"].as_array().unwrap().len(), 2);
    studio.faults().set_max_roots(0);
    studio.data("{ movies(ids: [1, 2, 3]) { id } }").await;
}

#[tokio::test]
async fn a_renamed_field_is_gone_from_queries_and_from_introspection() {
    let studio = Studio::open().await;
    let fields = async || {
        let data = studio.data("{ __type(name: \"Movie\") { fields { name } } }").await;
        let names = data["__type"]["fields"].as_array().unwrap().iter();
        names.map(|field| field["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let has = |fields: &[String], name: &str| fields.iter().any(|field| field == name);
    let before = fields().await;
    assert!(has(&before, "title") && !has(&before, "name"), "{before:?}");
    studio.faults().rename_field(true);
    let after = fields().await;
    assert!(!has(&after, "title") && has(&after, "name"), "{after:?}");

    let answer = studio.answer("{ movies(ids: [1]) { title } }", json!({})).await;
    assert_eq!(answer["data"], Value::Null);
    assert!(answer["errors"][0]["message"].as_str().unwrap().starts_with("Unknown field \"title\" on type \"Movie\""));
    let data = studio.data("{ movies(ids: [1]) { name distributor { name } } }").await;
    assert_eq!(data["movies"][0]["name"], "The Land Girls");
    studio.faults().rename_field(false);
    assert_eq!(studio.data("{ movies(ids: [1]) { title } }").await["movies"][0]["title"], "The Land Girls");
}

#[tokio::test]
async fn a_service_is_slow_or_down_while_it_is_told_to_be() {
    let studio = Studio::open().await;
    let delay = Duration::from_millis(200);
    studio.faults().set_delay(delay);
    let start = Instant::now();
    studio.data("{ movie(id: 1) { id } }").await;
    assert!(start.elapsed() >= delay);
    studio.faults().set_delay(Duration::ZERO);

    let health = format!("http://{}/healthz", studio.service.address());
    assert_eq!(studio.http.get(&health).send().await.unwrap().status(), 200);
    studio.faults().set_down(true);
    assert_eq!(studio.http.get(&health).send().await.unwrap().status(), 503);
    assert_eq!(studio.post("{ movie(id: 1) { id } }", json!({})).await.status(), 503);
    studio.faults().set_down(false);
    studio.data("{ movie(id: 1) { id } }").await;
}

/// An answer that is held back says what was true when it was asked for, and one from a cache what was true before.
#[tokio::test]
async fn answers_are_as_old_as_they_are_told_to_be() {
    let studio = Studio::open().await;
    let title = async || studio.data("{ movie(id: 1) { title } }").await["movie"]["title"].clone();
    studio.faults().set_late(Duration::from_millis(500));
    let held_back = async {
        while studio.faults().movies_fetched() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        studio.run("UPDATE movie SET title = 'Later' WHERE id = 1").await;
    };
    let (answered, ()) = tokio::join!(title(), held_back);
    assert_eq!(answered, "The Land Girls");
    studio.faults().set_late(Duration::ZERO);
    assert_eq!(title().await, "Later");

    studio.faults().set_age(Duration::from_secs(3600));
    assert_eq!(title().await, "Later");
    studio.run("UPDATE movie SET title = 'Later still' WHERE id = 1").await;
    assert_eq!(title().await, "Later");
    studio.faults().set_age(Duration::from_nanos(1000));
    assert_eq!(title().await, "Later still");
    studio.faults().set_age(Duration::ZERO);
    assert_eq!(title().await, "Later still");
}

#[tokio::test]
async fn an_answer_is_spoilt_by_one_movie_alone() {
    let studio = Studio::open().await;
    let post = async |id: u32| {
        studio.post("query($ids: [ID!]!) { movies(ids: $ids) { id title } }", json!({ "ids": [1, id] })).await
    };
    for (poison, part) in [
        (Poison::HalfSurrogate, "\"title\":\"\\ud83d\""),
        (Poison::NotANumber, "\"title\":NaN"),
        (Poison::Nested(3), "\"title\":[[[]]]"),
        (Poison::ErrorPage, "<html>"),
    ] {
        studio.faults().poison_ids(vec!["2".to_owned()], poison);
        let answer = post(2).await;
        assert_eq!(answer.status() == 500, poison == Poison::ErrorPage);
        let text = answer.text().await.unwrap();
        assert!(text.contains(part), "{text}");
        assert_eq!(post(3).await.json::<Value>().await.unwrap()["data"]["movies"][0]["title"], "The Land Girls");
    }
    studio.faults().poison_ids(vec!["2".to_owned()], Poison::Cut);
    assert!(post(2).await.text().await.is_err());
    studio.faults().poison_ids(Vec::new(), Poison::Cut);
    post(2).await.json::<Value>().await.unwrap();
    studio.faults().set_status(Some(reqwest::StatusCode::FOUND));
    let plain = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    assert_eq!(
        plain
            .post(studio.service.url())
            .body("{}")
            .header("content-type", "application/json")
            .send()
            .await
            .unwrap()
            .status(),
        302
    );
    studio.faults().set_status(None);
    post(2).await.json::<Value>().await.unwrap();
}

#[tokio::test]
async fn a_stopped_service_starts_again_at_the_same_address() {
    let Studio { url, mut service, http, .. } = Studio::open().await;
    let ask = |service: &Service| http.post(service.url()).json(&json!({ "query": "{ movie(id: 1) { id } }" })).send();
    for _ in 0..3 {
        let answer: Value = ask(&service).await.unwrap().json().await.unwrap();
        assert_eq!(answer, json!({ "data": { "movie": { "id": "1" } } }));

        // A request that is held back for long must not keep the service from stopping.
        let faults = service.faults();
        faults.set_delay(Duration::from_secs(3600));
        let held_back = tokio::spawn(ask(&service));
        while faults.requests() < 2 {
            tokio::task::yield_now().await;
        }
        let listen = service.address();
        service.stop().await;
        assert_eq!(held_back.await.unwrap().unwrap().status(), 503);
        service = Service::start(Settings { listen, ..settings(&url) }).await.unwrap();
        assert_eq!(service.address(), listen);
    }
}

#[tokio::test]
async fn a_lost_database_is_an_error_and_never_an_absence() {
    let studio = Studio::open().await;
    studio.data("{ movie(id: 1) { id } }").await;
    let name = studio.url.rsplit('/').next().unwrap();
    let server = connect(&studio.url.replace(name, "postgres")).await;
    server.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    server.execute(&end, &[]).await.unwrap();
    let answer = studio.answer("{ movies(ids: [1]) { id } movie(id: 1) { id } }", json!({})).await;
    assert_eq!(answer["data"], Value::Null);
    let message = answer["errors"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("the movie database could not answer: "), "{message}");
    let health = format!("http://{}/healthz", studio.service.address());
    assert_eq!(studio.http.get(&health).send().await.unwrap().status(), 503);

    server.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
    studio.data("{ movie(id: 1) { id } }").await;
}
