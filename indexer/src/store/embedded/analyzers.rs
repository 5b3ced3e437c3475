//! Analyzers of text fields, under the names that Elasticsearch has for them.

use tantivy::tokenizer::{
    Language, LowerCaser, RawTokenizer, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
    TokenizerManager, WhitespaceTokenizer,
};

/// The tokenizer of exact values.
pub(super) const EXACT: &str = "tributary_exact";

/// Lucene's English stop words, and what an apostrophe leaves behind ("Alien's").
const ENGLISH_STOP_WORDS: [&str; 35] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
    "s", "t",
];

const STEMMED: [(&str, Language); 18] = [
    ("arabic", Language::Arabic),
    ("danish", Language::Danish),
    ("dutch", Language::Dutch),
    ("english", Language::English),
    ("finnish", Language::Finnish),
    ("french", Language::French),
    ("german", Language::German),
    ("greek", Language::Greek),
    ("hungarian", Language::Hungarian),
    ("italian", Language::Italian),
    ("norwegian", Language::Norwegian),
    ("portuguese", Language::Portuguese),
    ("romanian", Language::Romanian),
    ("russian", Language::Russian),
    ("spanish", Language::Spanish),
    ("swedish", Language::Swedish),
    ("tamil", Language::Tamil),
    ("turkish", Language::Turkish),
];

/// The tokenizer of an analyzer; `None` if the embedded index has no such analyzer.
pub(super) fn tokenizer(analyzer: &str) -> Option<String> {
    names().any(|name| name == analyzer).then(|| format!("tributary_{analyzer}"))
}

/// The analyzers there are.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ["standard", "simple", "whitespace", "keyword"].into_iter().chain(STEMMED.into_iter().map(|(name, _)| name))
}

/// All of them, registered.
pub(super) fn manager() -> TokenizerManager {
    let manager = TokenizerManager::default();
    let words =
        || TextAnalyzer::builder(SimpleTokenizer::default()).filter(RemoveLongFilter::limit(255)).filter(LowerCaser);
    manager.register(EXACT, TextAnalyzer::builder(RawTokenizer::default()).build());
    manager.register("tributary_keyword", TextAnalyzer::builder(RawTokenizer::default()).build());
    manager.register("tributary_whitespace", TextAnalyzer::builder(WhitespaceTokenizer::default()).build());
    manager.register("tributary_standard", words().build());
    manager.register("tributary_simple", words().build());
    for (name, language) in STEMMED {
        let stop_words = if language == Language::English { &ENGLISH_STOP_WORDS[..] } else { &[] };
        let stop_words = StopWordFilter::remove(stop_words.iter().map(|word| (*word).to_owned()));
        manager
            .register(&format!("tributary_{name}"), words().filter(stop_words).filter(Stemmer::new(language)).build());
    }
    manager
}
