//! Where an event stands among those of its key, also where its topic was deleted and made again since: what is of an earlier topic of the
//! name comes before what is of the one that there is now, whatever their offsets.

use std::collections::HashMap;
use std::sync::Arc;

use tributary_transport::TopicId;

/// The place of an event in its partition: which topic of the name, and which offset in it.
pub(super) type Turn = (u32, u64);

/// That of topics of which no identity was told, or kept: such an offset may be one of any topic of the name.
pub(super) const UNTOLD: u32 = 0;

/// The topics that a name has meant, each with its number; that of the last one is the highest.
#[derive(Debug, Default)]
pub(super) struct Topics(HashMap<Arc<str>, HashMap<TopicId, u32>>);

impl Topics {
    /// The number of a topic: an event of it was set aside.
    pub fn number(&mut self, name: &Arc<str>, id: Option<TopicId>) -> u32 {
        let Some(id) = id else { return UNTOLD };
        let numbers = self.0.entry(name.clone()).or_default();
        let next = last(numbers) + 1;
        *numbers.entry(id).or_insert(next)
    }

    /// The topic that the name means now is this one. If it was not known to be the last one: the number that it had, and the one that it
    /// has now.
    pub fn is(&mut self, name: &Arc<str>, id: TopicId) -> Option<(u32, u32)> {
        let number = self.number(name, Some(id));
        let numbers = self.0.get_mut(name)?;
        let last = last(numbers);
        if number == last {
            return None;
        }
        numbers.insert(id, last + 1);
        Some((number, last + 1))
    }

    /// The number and the identity of the topic that the name means now, as far as it was told.
    pub fn current(&self, name: &str) -> (u32, Option<TopicId>) {
        let numbers = self.0.get(name).into_iter().flatten();
        numbers.max_by_key(|(_, number)| **number).map_or((UNTOLD, None), |(id, number)| (*number, Some(*id)))
    }
}

fn last(numbers: &HashMap<TopicId, u32>) -> u32 {
    numbers.values().copied().max().unwrap_or(UNTOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_that_there_is_now_comes_last() {
        let (mut topics, name) = (Topics::default(), Arc::from("films"));
        assert_eq!(topics.current("films"), (UNTOLD, None));
        let [one, two] = [(); 2].map(|()| TopicId::new());
        // Letters are read in the order in which they were written last.
        assert_eq!((topics.number(&name, Some(two)), topics.number(&name, Some(one))), (1, 2));
        assert_eq!(topics.number(&name, None), UNTOLD);
        assert_eq!(topics.is(&name, two), Some((1, 3)));
        assert_eq!(topics.is(&name, two), None);
        assert_eq!(topics.current("films"), (3, Some(two)));
        assert_eq!((topics.number(&name, Some(one)), topics.number(&name, Some(two))), (2, 3));
    }
}
