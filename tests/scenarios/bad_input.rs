//! Bad input: a clear error that names the place, the cause and the remedy, the right exit code, and nothing lost.

use movie_graph::StatusCode;

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

impl World {
    /// Rewrites the pipeline's text.
    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.pipeline()).expect("a pipeline");
        assert!(text.contains(from), "{from:?} is not in the pipeline");
        std::fs::write(self.pipeline(), text.replace(from, to)).expect("written");
    }

    /// Runs the pipeline, which must refuse: its exit code and everything it said.
    async fn refused(&mut self) -> (i32, String) {
        self.refused_with(&[]).await
    }

    /// The same with options.
    async fn refused_with(&mut self, options: &[&str]) -> (i32, String) {
        self.start_with(options);
        let code = self.ended().await;
        (code, self.log())
    }
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions() {
    let world = World::new("def", Pair::Embedded, Own::default()).await;
    let pipeline = world.pipeline();
    let path = pipeline.to_str().expect("a path");
    let (code, out, err) = world.run(&["check", path]).await;
    assert_eq!(code, 0, "{out}{err}");
    // Several errors at once, each with its place and a suggestion.
    world.edit("tables:", "tabels:");
    world.edit("refresh:", "refrsh:");
    let query = world.folder.path().join("movies.graphql");
    let text = std::fs::read_to_string(&query).expect("the query");
    std::fs::write(&query, text.replace("    released\n", "    relesed\n")).expect("written");
    let (code, _, err) = world.run(&["check", path]).await;
    assert_eq!(code, 3, "{err}");
    assert_says(&err, &["tabels", "tables", "refrsh", "refresh", "pipeline.yaml:", "^"]);
    let (code, _, err) = world.run(&["check", "no-such-file.yaml"]).await;
    assert_eq!(code, 5);
    assert_says(&err, &["no-such-file.yaml"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_and_edges() {
    let world = World::new("edge", Pair::Embedded, Own::default()).await;
    let path = world.pipeline().to_str().expect("a path").to_owned();
    let query = world.folder.path().join("movies.graphql");
    let text = std::fs::read_to_string(&query).expect("the query");
    std::fs::write(&query, text.replace("    released\n", "    relesed\n")).expect("written");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 3, "{err}");
    assert_says(&err, &["relesed", "released", "movies.graphql:"]);
    std::fs::write(&query, text).expect("written");
    for command in [["plan", &path], ["graph", &path]] {
        let (code, out, err) = world.run(&command).await;
        assert_eq!(code, 0, "{err}");
        assert_says(&out, &["Movie", "talents"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources() {
    let mut world = World::new("src", Pair::Embedded, Own::default()).await;
    world.execute("CREATE TABLE no_key (name text)").await;
    world.edit("        - public.venue\n", "        - public.venues\n");
    world.edit("    public.venue: [", "    public.venues: [");
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["public.venues", "public.venue"]);
    world.edit("public.venues", "public.no_key");
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["no_key", "key"]);
    world.edit("public.no_key", "public.venue");
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
}

/// Rules that would lose changes: columns that are not there, not logged for old rows, or written differently in events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules() {
    let mut world = World::new("rules", Pair::Embedded, Own::default()).await;
    world.edit("    query: movies.graphql\n", "    query: movies.graphql\n    roots: { table: public.movie }\n");
    const RULE: &str = "public.screening: [{ type: Screening, id: \"{id}\" }]";
    world.execute("ALTER TABLE screening ADD COLUMN day date").await;
    for (rule, words) in [
        ("public.screening: [{ type: Movie, id: \"{movid_id}\" }]", ["movid_id", "events do not have", "movie_id"]),
        (
            "public.screening: [{ type: Movie, id: \"{movie_id}\" }]",
            ["movie_id", "as they were before", "REPLICA IDENTITY FULL"],
        ),
        ("public.screening: [{ type: Screening, id: \"{starts_at}\" }]", ["starts_at", "timestamp", "look different"]),
        ("public.screening: [{ type: Screening, id: \"{date(movie_id)}\" }]", ["it is no date", "as it is", "^^^^"]),
        (
            "public.screening: [{ type: Screening, id: \"s{day}\" }]",
            ["number of days", "write \"s{date(day)}\"", "^^^^^^"],
        ),
    ] {
        world.edit(RULE, rule);
        let (code, said) = world.refused().await;
        assert_eq!(code, 1, "{said}");
        assert_says(&said, &words);
        assert_says(&said, &[&format!("{}:", world.pipeline().display()), "graph.vertices"]);
        world.edit(rule, RULE);
    }
    // A wrong query hides no wrong rule.
    let path = world.pipeline().to_str().expect("a path").to_owned();
    world.edit("type: Distributor, id: \"{id}\"", "type: Distributor, id: \"{idd}\"");
    let query = world.folder.path().join("movies.graphql");
    let text = std::fs::read_to_string(&query).expect("the query");
    std::fs::write(&query, text.replace("    released\n", "    relesed\n")).expect("written");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 3, "{err}");
    assert_says(&err, &["relesed", "`idd`", "^^^^^", "2 errors"]);
    // Nor wrong ids.
    world.edit("{idd}", "Distributor:{id}");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 3, "{err}");
    assert_says(
        &err,
        &["relesed", "the rule for Distributor of public.distributor makes other ids", "^^^^^", "2 errors"],
    );
    std::fs::write(&query, text).expect("written");
    world.edit("Distributor:{id}", "{id}");
    // A column whose values are ids of the type by chance.
    world.edit("type: Distributor, id: \"{id}\"", "type: Distributor, id: \"{size}\"");
    world.execute("ALTER TABLE distributor ADD COLUMN size int; UPDATE distributor SET size = 1000000 + id; ALTER TABLE distributor REPLICA IDENTITY FULL").await;
    world.execute("UPDATE distributor SET size = 1 WHERE id = (SELECT min(id) FROM distributor)").await;
    let words = [
        "the graph knows 1 of",
        "\"{size}\" names another column than the key",
        "Distributor: { hidden: 100% }",
        "^^^^^^",
    ];
    let (code, out, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 3, "{out}{err}");
    assert_says(&err, &words);
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &words);
    // Nothing was made for a pipeline that cannot run: no slot keeps the log.
    const MADE: &str = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) \
        + (SELECT count(*) FROM pg_publication)";
    assert_eq!(world.sql.query_one(MADE, &[]).await.expect("a count").get::<_, i64>(0), 0);
    // Whoever knows that the graph hides such rows says so.
    world.edit("  vertices:\n", "  types: { Distributor: { hidden: 100% } }\n  vertices:\n");
    let (code, out, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 0, "{out}{err}");
    world.edit("  types: { Distributor: { hidden: 100% } }\n", "");
    world.edit("{size}", "{id}");
    // The row's own vertex leads to the documents that embedded it, whatever its other columns were.
    world.edit(RULE, "public.screening: [{ type: Movie, id: \"{movie_id}\" }, { type: Screening, id: \"{id}\" }]");
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("INSERT INTO screening (id, movie_id) SELECT g, 100 + g % 7 FROM generate_series(1, 50) g").await;
    world.assert_converged().await;
    world.execute("UPDATE screening SET movie_id = 40 WHERE movie_id = (SELECT min(movie_id) FROM screening)").await;
    world.execute("DELETE FROM screening WHERE movie_id = (SELECT max(movie_id) FROM screening)").await;
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers() {
    let mut world = World::new("srv", Pair::KafkaElasticsearch, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.kill();
    // An index whose mapping differs from the plan's.
    let query = world.folder.path().join("movies.graphql");
    let text = std::fs::read_to_string(&query).expect("the query");
    std::fs::write(&query, text.replace("    released\n", "    released @ignore\n    title2: title\n"))
        .expect("written");
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["released", "mapping"]);
    std::fs::write(&query, text).expect("written");
    // Topics with too few partitions.
    world.edit("partitions: 3", "partitions: 5");
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["partitions", "3", "5"]);
    world.edit("partitions: 5", "partitions: 3");
    world.start();
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_changes_its_schema_while_running_and_that_ends_it() {
    let mut world = World::new("schema", Pair::Embedded, Own::default()).await;
    world.start_with(&["--fail-fast"]);
    world.until_documents(MOVIES).await;
    world.faults().rename_field(true);
    world.execute("UPDATE movie SET title = 'Changed' WHERE id = 5").await;
    let code = world.ended().await;
    assert_eq!(code, 1);
    assert_says(&world.log(), &["title", "check"]);
    // Nothing is lost: with the schema back, the change arrives.
    world.faults().rename_field(false);
    world.start();
    world.assert_converged().await;
}

/// What cannot be waited for ends at once, with the exit code of its kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_does_not_tell_its_schema_and_nobody_waits() {
    let mut world = World::new("told", Pair::Embedded, Own::default()).await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    for (status, expected, words) in [
        (StatusCode::NOT_FOUND, 1, ["404", "check that graph.endpoint"]),
        (StatusCode::FOUND, 1, ["/maintenance", "graph.endpoint"]),
        (StatusCode::FORBIDDEN, 1, ["403", "graph.headers"]),
        (StatusCode::SERVICE_UNAVAILABLE, 4, ["503", "/graphql"]),
    ] {
        world.faults().set_status(Some(status));
        let (code, said) = world.refused_with(&["--fail-fast"]).await;
        assert_eq!(code, expected, "{said}");
        assert_says(&said, &words);
        for command in [["check", &pipeline], ["plan", &pipeline]] {
            let (code, _, err) = world.run(&command).await;
            assert_eq!(code, expected, "{err}");
            assert_says(&err, &words);
        }
    }
    // A text that is wrong is no matter of waiting, whatever the graph says.
    world.edit("refresh:", "refrsh:");
    let (code, said) = world.refused().await;
    assert_eq!(code, 3, "{said}");
    assert_says(&said, &["refrsh", "refresh"]);
}

/// A document that the store refuses is set aside alone, with the store's words; the one that is stored stays.
async fn refused_by_the_store(pair: Pair) {
    let mut world = World::new("refused", pair, Own::default()).await;
    // The document is large: on a slow machine it is to fail for that, and not for its time.
    world.edit("  edges:\n", "  timeout: 120s\n  scalars: { Date: date }\n  edges:\n");
    world.edit("deadline: 5s", "deadline: 40s");
    world.start();
    world.until_documents(MOVIES).await;
    // A year that PostgreSQL and the graph know, and no date field does: the document keeps it.
    world.execute("UPDATE movie SET released = '20000-01-01' WHERE id = 8").await;
    // More than any store takes.
    world
        .execute(
            "INSERT INTO talent (id, name) SELECT 900000 + i, repeat('x', 1000000) FROM generate_series(1, 40) i; \
             INSERT INTO movie_talent (movie_id, talent_id, role) SELECT 7, 900000 + i, 'actor' FROM generate_series(1, 40) i",
        )
        .await;
    world.execute("UPDATE movie SET title = 'Beside it' WHERE id BETWEEN 5 AND 9").await;
    world
        .until("the document is a dead letter", async |address| {
            let letters = client::get(address, "/dead-letters").await.unwrap_or_default();
            letters.as_array().is_some_and(|l| !l.is_empty())
        })
        .await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let (code, shown, err) = world.run(&["dlq", "show", &pipeline, &format!("{}/7", world.index())]).await;
    assert_eq!(code, 0, "{err}");
    assert_says(&shown, &["the stores take"]);
    world.execute("DELETE FROM movie_talent WHERE talent_id > 900000; DELETE FROM talent WHERE id > 900000").await;
    world.assert_converged().await;
    world
        .until("the letter of a document that was built is withdrawn", async |address| {
            client::get(address, "/dead-letters").await.is_some_and(|l| l.as_array().is_some_and(Vec::is_empty))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_by_the_store_embedded() {
    refused_by_the_store(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_by_the_store_kafka_elasticsearch() {
    refused_by_the_store(Pair::KafkaElasticsearch).await;
}

/// What a user without rights, with a wrong password, or of a server without logical decoding is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_and_privileges() {
    let own = Own { postgres: true, ..Own::default() };
    let mut world = World::new("login", Pair::Embedded, own).await;
    world.execute("CREATE ROLE follower LOGIN PASSWORD 'hunter2'").await;
    world.connect_as("follower", "hunter3");
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["password", "follower"]);
    world.connect_as("follower", "hunter2");
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["ALTER ROLE", "REPLICATION"]);
    assert!(!said.contains("hunter"), "a password is in the log:\n{said}");
    world.connect_as_owner();
    world.execute("ALTER SYSTEM SET wal_level = replica").await;
    world.restart_postgres().await;
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["wal_level", "logical", "restart"]);
    world.execute("ALTER SYSTEM RESET wal_level").await;
    world.restart_postgres().await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
}

/// A row whose event is larger than may be: the pipeline stops and names two remedies; both work, and what is left out of an event
/// is in its document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_above_max_record() {
    let mut world = World::new("large", Pair::KafkaElasticsearch, Own::default()).await;
    world.execute("ALTER TABLE movie ADD COLUMN script text").await;
    world.edit("partitions: 3", "partitions: 3, max_record: 64KiB");
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'Before' WHERE id = 6").await;
    world.assert_converged().await;
    world.execute("UPDATE movie SET title = 'Large', script = repeat('line ', 40000) WHERE id = 7").await;
    world.execute("UPDATE movie SET title = 'After' WHERE id = 8").await;
    for _ in 0..2 {
        assert_eq!(world.ended().await, 1, "{}", world.log());
        assert_says(&world.log(), &["public.movie", "max_record is 65536", "197KiB or more", "oversized: set-aside"]);
        world.start();
    }
    world.ended().await;
    world.edit("max_record: 64KiB", "max_record: 197KiB");
    world.start();
    world.assert_converged().await;
    world.kill();
    world.edit("max_record: 197KiB", "max_record: 64KiB, oversized: set-aside");
    world.start();
    world.execute("UPDATE movie SET title = 'Larger', script = repeat('line ', 50000) WHERE id = 9").await;
    world.execute("UPDATE movie SET title = 'After that' WHERE id = 10").await;
    world.assert_converged().await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let (code, listed, err) = world.run(&["dlq", "list", &pipeline]).await;
    assert_eq!(code, 0, "{err}");
    assert_says(&listed, &["public.movie", "\"id\":9", "script (after)", ".json"]);
    let (code, _, err) = world.run(&["dlq", "replay", &pipeline, "--all"]).await;
    assert_eq!(code, 0, "{err}");
    world.assert_converged().await;
    let (_, listed, _) = world.run(&["dlq", "list", &pipeline]).await;
    assert_says(&listed, &["no dead letters"]);
}

/// Kafka as README has it, on a cluster of one broker: within seconds it says what to write, and that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_copies_than_brokers() {
    let mut world = World::new("copies", Pair::KafkaElasticsearch, Own::default()).await;
    let pipeline = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let of_the_test = format!(
        "transport: {{ kafka: {{ brokers: \"{}\", partitions: 3, replication: 1, min_insync: 1 }} }}",
        world.brokers()
    );
    let of_readme = format!("transport: {{ kafka: {{ brokers: \"{}\" }} }}", world.brokers());
    assert!(pipeline.contains(&of_the_test), "{pipeline}");
    std::fs::write(world.pipeline(), pipeline.replace(&of_the_test, &of_readme)).expect("the pipeline");
    world.start();
    let why = async |address: &str, part: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"][part]["why"].as_str().unwrap_or_default().to_owned()
    };
    world
        .until("health says what to write", async |address| {
            why(address, "transport").await.contains("write in the pipeline: transport: {")
        })
        .await;
    let said = why(&world.address().expect("it listens"), "transport").await;
    assert!(said.contains("it has 1 broker now, and each topic is to have 3 copies"), "{said}");
    assert!(world.said("write in the pipeline") > 0, "the log says it too:\n{}", world.log());
    world.kill();
    let (_, rest) = said.split_once("write in the pipeline: ").expect("what to write");
    let (remedy, _) = rest.split_once(";").expect("its end");
    std::fs::write(world.pipeline(), pipeline.replace(&of_the_test, remedy)).expect("the pipeline");
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
}

/// Members of a list that are counted, and that documents do not show, are known by their rows alone, also by those that are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counted_lists() {
    let mut world = World::new("counted", Pair::Embedded, Own::default()).await;
    let path = world.pipeline().to_str().expect("a path").to_owned();
    let schema = "type Query { movie(id: ID!): Movie }
        type Movie { id: ID! title: String! screenings(first: Int): Screenings! }
        type Screenings { totalCount: Int! nodes: [Screening!]! }
        type Screening { id: ID! movie: Movie }";
    std::fs::write(world.folder.path().join("schema.graphql"), schema).expect("written");
    let query =
        |what: &str| format!("query M($id: ID!) {{ movie(id: $id) {{ title screenings(first: 3) {{ {what} }} }} }}");
    let rule = "{ type: Screening, id: \"{id}\" }, { type: Movie, id: \"{movie_id}\" }";
    let name = world.name.clone();
    let text = |rules: &str| {
        format!(
            "pipeline: {name}\nhttp: {{ listen: \"127.0.0.1:0\" }}\ndata: \"${{TRIBUTARY_DATA}}\"\nsources:\n  s: {{ postgres: {{ url: \"${{STUDIO_URL}}\", \
             tables: [public.movie, public.screening] }} }}\ngraph:\n  endpoint: \"${{GRAPH_URL}}\"\n  schema: schema.graphql\n  \
             probe: off\n  vertices:\n    public.movie: [{{ type: Movie, id: \"{{id}}\" }}]\n    public.screening: [{rules}]\n\
             indexes:\n  {name}: {{ query: counted.graphql }}\n",
        )
    };
    let (pipeline, file) = (world.pipeline(), world.folder.path().join("counted.graphql"));
    let write = |rules: &str, what: &str| {
        std::fs::write(&pipeline, text(rules)).expect("written");
        std::fs::write(&file, query(what)).expect("written");
    };
    // Without the foreign key nothing tells of a screening that is not shown.
    write("{ type: Screening, id: \"{id}\" }", "totalCount nodes { id }");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 3, "{err}");
    assert_says(
        &err,
        &[
            "every `Screening` of `Movie.screenings` counts",
            "public.screening: [{ type: Screening",
            "REPLICA IDENTITY FULL",
        ],
    );
    // With it, the log must have old rows.
    write(rule, "totalCount nodes { id }");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 3, "{err}");
    let statement = "ALTER TABLE \"public\".\"screening\" REPLICA IDENTITY FULL";
    assert_says(&err, &["`movie_id`, which the log does not have", statement]);
    let (code, said) = world.refused().await;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["REPLICA IDENTITY FULL"]);
    // Those that are only cut lead back while they are there, and matter no more when they are not.
    write(rule, "nodes { id }");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 0, "{err}");
    write(rule, "totalCount nodes { id }");
    world.execute(statement).await;
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 0, "{err}");
}

/// A value that no column holds is made of other rows: the check says what that means, and leaves it to the person.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_made_of_other_rows() {
    let world = World::new("derived", Pair::Embedded, Own::default()).await;
    let path = world.pipeline().to_str().expect("a path").to_owned();
    let (code, _, err) = world.run(&["check", &path]).await;
    assert!(code == 0 && !err.contains("note:"), "every value of the demo is a column's: {code} {err}");
    let schema = "type Query { movie(id: ID!): Movie }
        type Movie { id: ID! title: String! screeningCount: Int! }";
    std::fs::write(world.folder.path().join("schema.graphql"), schema).expect("written");
    let query = "query M($id: ID!) { movie(id: $id) { title screeningCount } }";
    std::fs::write(world.folder.path().join("movies.graphql"), query).expect("written");
    let name = &world.name;
    let text = format!(
        "pipeline: {name}\nhttp: {{ listen: \"127.0.0.1:0\" }}\ndata: \"${{TRIBUTARY_DATA}}\"\nsources:\n  s: {{ postgres: {{ url: \"${{STUDIO_URL}}\", \
         tables: [public.movie, public.screening] }} }}\ngraph:\n  endpoint: \"${{GRAPH_URL}}\"\n  schema: schema.graphql\n  \
         probe: off\n  vertices:\n    public.movie: [{{ type: Movie, id: \"{{id}}\" }}]\nindexes:\n  {name}: {{ query: movies.graphql }}\n",
    );
    std::fs::write(world.pipeline(), text).expect("written");
    let (code, _, err) = world.run(&["check", &path]).await;
    assert_eq!(code, 0, "{err}");
    assert_says(&err, &["note: ", "`Movie.screeningCount`", "(public.movie)", "map that table to Movie"]);
    assert!(!err.contains("Movie.title"), "{err}");
}
