//! What one very large row costs a whole process: a small multiple of it.

use crate::world::{MOVIES, Own, Pair, World};

/// Bytes of the row.
const ROW: u64 = 120 << 20;

/// The row passes the connector, the topic of its table, the look-up of what it touches, and a stream that reads the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_120_mb_costs_a_small_multiple_of_it() {
    let mut world = World::new("heavy", Pair::Embedded, Own::default()).await;
    world
        .execute("ALTER TABLE movie ADD COLUMN script text; ALTER TABLE movie ALTER script SET STORAGE EXTERNAL")
        .await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'Before' WHERE id = 6").await;
    world.assert_converged().await;
    let before = world.most_memory();
    // Nothing that compresses away to nothing.
    world
        .execute(&format!(
            "UPDATE movie SET title = 'Heavy', script = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, {}) i) \
             WHERE id = 7",
            ROW / 32
        ))
        .await;
    world.assert_converged().await;
    let most = world.most_memory();
    let times = most.saturating_sub(before) as f64 / ROW as f64;
    assert!(times < 8.0, "{times:.1} times its size, beyond {} MiB", before >> 20);
    // Later changes are as they were, and what the row needed is given back.
    world.execute("UPDATE movie SET title = 'After' WHERE id = 8").await;
    world.assert_converged().await;
}
