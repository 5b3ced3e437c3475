use super::*;
use proptest::prelude::*;

fn ids(taken: &[(Arc<str>, Job<u32>)]) -> Vec<&str> {
    taken.iter().map(|(id, _)| &**id).collect()
}

#[tokio::test]
async fn requests_for_one_document_are_one_build_and_later_ones_the_next() {
    let (now, debounce) = (Instant::now(), Duration::from_millis(5));
    let mut schedule = Schedule::new(debounce);
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    schedule.add(&a, Lane::Live, 1, now);
    schedule.add(&a, Lane::Bulk, 2, now);
    schedule.add(&b, Lane::Bulk, 3, now);
    assert!(schedule.take(Lane::Live, 10, now).is_empty());
    let later = now + debounce;
    let taken = schedule.take(Lane::Live, 10, later);
    assert_eq!(ids(&taken), ["a"]);
    assert_eq!(taken[0].1.requests, [1, 2]);
    schedule.add(&a, Lane::Live, 4, later);
    assert!(schedule.take(Lane::Live, 10, later + debounce).is_empty());
    schedule.finish(&a, None);
    let next = schedule.take(Lane::Live, 10, later + debounce);
    assert_eq!(next[0].1.requests, [4]);
    schedule.finish(&a, None);
    assert_eq!(ids(&schedule.take(Lane::Bulk, 10, later)), ["b"]);
    schedule.finish(&b, None);
    assert!(schedule.is_empty());
}

#[tokio::test]
async fn a_job_that_is_given_back_keeps_its_requests_and_its_pause() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Duration::ZERO);
    let a: Arc<str> = "a".into();
    schedule.add(&a, Lane::Bulk, 1, now);
    let (_, mut job) = schedule.take(Lane::Bulk, 1, now).remove(0);
    job.attempts = 1;
    schedule.add(&a, Lane::Live, 2, now);
    let pause = now + Duration::from_secs(1);
    schedule.finish(&a, Some((job, pause)));
    assert_eq!(schedule.next_start(Lane::Live), Some(pause));
    assert_eq!(schedule.next_start(Lane::Bulk), None);
    let taken = schedule.take(Lane::Live, 1, pause);
    let mut requests = taken[0].1.requests.clone();
    requests.sort_unstable();
    assert_eq!((requests, taken[0].1.attempts), (vec![1, 2], 1));
}

proptest! {
    #[test]
    fn every_request_is_built_once_and_never_two_builds_of_a_document_at_a_time(
        steps in proptest::collection::vec((0u8..4, 0usize..5, any::<bool>()), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _guard = runtime.enter();
        let mut now = Instant::now();
        let mut schedule = Schedule::new(Duration::from_millis(3));
        let names: Vec<Arc<str>> = ["a", "b", "c", "d", "e"].map(Arc::from).to_vec();
        let mut flying: Vec<(Arc<str>, Job<u32>)> = Vec::new();
        let (mut asked, mut built) = (0u32, Vec::new());
        for (step, which, flag) in steps {
            now += Duration::from_millis(1);
            match step {
                0 | 1 => {
                    schedule.add(&names[which], if flag { Lane::Live } else { Lane::Bulk }, asked, now);
                    asked += 1;
                }
                2 => {
                    for lane in [Lane::Live, Lane::Bulk] {
                        for job in schedule.take(lane, which, now) {
                            prop_assert!(flying.iter().all(|(id, _)| *id != job.0));
                            flying.push(job);
                        }
                    }
                }
                _ => if !flying.is_empty() {
                    let (id, mut job) = flying.remove(which % flying.len());
                    if flag {
                        job.attempts += 1;
                        schedule.finish(&id, Some((job, now + Duration::from_millis(7))));
                    } else {
                        built.extend(job.requests);
                        schedule.finish(&id, None);
                    }
                },
            }
        }
        now += Duration::from_secs(1);
        while !schedule.is_empty() {
            for (id, job) in flying.drain(..) {
                built.extend(job.requests);
                schedule.finish(&id, None);
            }
            for lane in [Lane::Live, Lane::Bulk] {
                flying.extend(schedule.take(lane, 10, now));
            }
        }
        built.sort_unstable();
        prop_assert_eq!(built, (0..asked).collect::<Vec<_>>());
    }
}
