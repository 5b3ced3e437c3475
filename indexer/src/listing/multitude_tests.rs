//! All roots are listed, and all documents that are none, in the memory of some pages and of a few bytes for each.

use tributary_event::HybridClock;

use super::*;
use crate::model::multitude::{Kept, Multitude, documents, is_child, measured, resident};
use crate::store::Prepared;

/// What a listing may need beyond what was there before, in bytes, and for each document.
const MOST: u64 = 24 << 20;
const MOST_OF_EACH: u64 = 10;

/// As many roots as there are documents.
struct Roots(Multitude);

#[async_trait]
impl RootIdSource for Roots {
    async fn page(&self, after: Option<&str>, size: usize) -> Result<IdPage, GraphError> {
        let (ids, next) = self.0.page(after, size);
        Ok(IdPage { ids, next })
    }

    async fn expected(&self) -> Option<u64> {
        Some(self.0.documents)
    }
}

/// Not a test by itself: what [`all_of_millions_of_documents_are_listed_in_little_memory`] starts.
#[tokio::test(start_paused = true)]
async fn child_that_lists_all_documents() {
    if !is_child() {
        return;
    }
    let documents = documents();
    let stamp = HybridClock::earlier(HybridClock::default().now(), Duration::from_secs(3600));
    let all = |documents| Multitude { documents, stamp, is_each: false };
    // Some documents have no root any more.
    let (gone, stop) = (1_000, CancellationToken::new());
    let Kept { plan, indexer, topics, .. } = Kept::new(all(documents));
    let (context, roots) = (indexer.indexes()[0].context.clone(), Roots(all(documents - gone)));
    let builds = names::builds(&plan.pipeline, "movies", Lane::Bulk);
    topics.only_count(builds.clone());
    let before = resident("VmRSS:");
    let listings = &context.listings;
    // A first build asks for each root; then a person asks for all, or a table was emptied: all documents are asked for.
    for (prepared, expected) in [(Prepared::Created, documents - gone), (Prepared::Existing, documents)] {
        match prepared {
            Prepared::Created => listings.open_with(prepared, 0).await.expect("an answer"),
            Prepared::Existing => listings.begin_after(now_us(), "a table was truncated".into()).await.expect("begun"),
        }
        let (listing, asked) = (listings.take().await.expect("an answer").expect("a listing"), topics.count(&builds));
        let end = list(&context, &roots, &|| Some(0), listing, &stop).await.expect("listed");
        assert!(matches!(end, End::Complete(listed) if listed == expected));
        assert_eq!(topics.count(&builds) - asked, expected, "each is asked for once");
    }
    let needed = resident("VmHWM:").saturating_sub(before);
    eprintln!("{documents} documents: {:.1} MiB more at most", needed as f64 / (1 << 20) as f64);
    assert!(needed < MOST + MOST_OF_EACH * documents, "{needed} bytes");
}

#[test]
fn all_of_millions_of_documents_are_listed_in_little_memory() {
    measured("listing::multitude_tests::child_that_lists_all_documents");
}
