//! Whether the ids that rules make of rows look like those that documents embed. Where the graph writes them in another way (encoded, in
//! other letters, with blanks), no lookup finds a document, and documents that embed the vertices keep their old values. Pure.
//!
//! That a change finds no document says little: many rows are in none. But where many changes of a type found none at all, and the ids
//! that documents embed are made of other kinds of characters, it is worth a word.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Vertex;

/// So many vertices of a type that are in no document are worth a word.
const MANY: u32 = 20;
/// Ids of a type that are looked at, of either side.
const EXAMPLES: u32 = 16;

/// The types of an index.
#[derive(Debug, Default)]
pub struct Likeness(BTreeMap<String, Type>);

#[derive(Debug, Default)]
struct Type {
    embedded: Side,
    changed: Side,
    /// Nothing is to be said of it: a lookup found a document, or it was said.
    is_over: bool,
}

/// Some ids: how many, of which kinds their characters are, and one of them.
#[derive(Debug, Default)]
struct Side {
    ids: u32,
    kinds: BTreeSet<char>,
    example: String,
}

impl Side {
    fn add(&mut self, id: &str) {
        if self.ids < EXAMPLES {
            self.kinds.extend(id.chars().map(kind));
            id.clone_into(&mut self.example);
        }
        self.ids += 1;
    }
}

/// What a character is, as far as ids go: a digit, a small or a large letter, or itself.
fn kind(c: char) -> char {
    match c {
        _ if c.is_numeric() => '0',
        _ if c.is_lowercase() => 'a',
        _ if c.is_uppercase() => 'A',
        c if c.is_alphabetic() => 'a',
        c => c,
    }
}

impl Likeness {
    /// A document embeds these references.
    pub fn embedded(&mut self, references: &[String]) {
        for reference in references {
            let Some((name, id)) = reference.split_once(':') else { continue };
            match self.0.get_mut(name) {
                Some(of_type) if of_type.is_over || of_type.embedded.ids >= EXAMPLES => {}
                Some(of_type) => of_type.embedded.add(id),
                None => self.0.entry(name.to_owned()).or_default().embedded.add(id),
            }
        }
    }

    /// Documents were looked up that embed vertices. What is to be said of their type, if they are of one.
    pub fn looked_up(&mut self, vertices: &[&Vertex], found: bool) -> Option<String> {
        let name = &vertices.first()?.type_name;
        if vertices.iter().any(|vertex| vertex.type_name != *name) {
            return None;
        }
        if !self.0.contains_key(name) {
            self.0.insert(name.clone(), Type::default());
        }
        let of_type = self.0.get_mut(name)?;
        if found || of_type.is_over {
            of_type.is_over = true;
            return None;
        }
        vertices.iter().for_each(|vertex| of_type.changed.add(&vertex.id));
        let (changed, embedded) = (&of_type.changed, &of_type.embedded);
        if changed.ids < MANY || embedded.ids < EXAMPLES || changed.kinds == embedded.kinds {
            return None;
        }
        of_type.is_over = true;
        Some(format!(
            "{} changes of {name} were looked up, and no document embeds any of them, though documents embed others: the ids that \
             graph.vertices makes of rows, such as {:?}, do not look like those that the graph answers, such as {:?} (`tributary check` \
             compares them); documents keep old values of {name} until they are the same",
            of_type.changed.ids, of_type.changed.example, of_type.embedded.example
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(likeness: &mut Likeness, id: &str, found: bool) -> Option<String> {
        likeness.looked_up(&[&Vertex::new("Talent", id)], found)
    }

    fn said(embedded: impl Fn(u32) -> String, changed: impl Fn(u32) -> String) -> Vec<String> {
        let mut likeness = Likeness::default();
        (0..20).for_each(|n| likeness.embedded(&[format!("Movie:{n}"), format!("Talent:{}", embedded(n))]));
        (0..40).filter_map(|n| look(&mut likeness, &changed(n), false)).collect()
    }

    #[test]
    fn ids_of_another_kind_are_told_of_once() {
        let told = said(|n| format!("VGFsZW50Oj{n}="), |n| n.to_string());
        assert!(told.len() == 1 && told[0].contains("20 changes of Talent") && told[0].contains("\"VGFs"), "{told:?}");
        assert_eq!(said(|n| format!("ab{n}  "), |n| format!("ab{n}")).len(), 1, "blanks of char(n)");
        assert_eq!(said(|n| format!("AB-{n}"), |n| format!("ab-{n}")).len(), 1, "letters");
        let uuid = |n: u32| format!("{:08x}-{:04x}", n.wrapping_mul(0x9e37_79b9), n * 7 + 0xa0);
        assert!(said(uuid, |n| uuid(n + 1000)).is_empty(), "alike: they are other vertices");
    }

    #[test]
    fn a_type_of_which_documents_were_found_is_well() {
        let mut likeness = Likeness::default();
        (0..20).for_each(|n| likeness.embedded(&[format!("Talent:x{n}")]));
        assert_eq!(look(&mut likeness, "1", true), None);
        assert!((0..100).all(|n| look(&mut likeness, &n.to_string(), false).is_none()));
        // What no document embeds says nothing.
        let mut likeness = Likeness::default();
        assert!((0..100).all(|n| look(&mut likeness, &n.to_string(), false).is_none()));
    }
}
