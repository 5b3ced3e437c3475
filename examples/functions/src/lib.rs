//! Functions and streams of somebody who sells films: what programs and steps of `pipeline.yaml` call, and two streams that stand behind its
//! own, one as attributes, one as a builder.

use serde::{Deserialize, Serialize};
use tributary::functions::{Change, Functions, Json};
use tributary::written::{Call, Stream, Topic};

/// All of it, for the command.
pub fn functions() -> Functions {
    let functions = Functions::new().function::<score>().function::<dollars>();
    functions.stream::<SignedDeals>().with_stream(large_deals())
}

/// What a deal is worth to us: twice as much at home. Called for one event after the other.
///
/// # Errors
/// The price is none.
#[tributary::function]
pub fn score(price: f64, country: Option<&str>) -> Result<f64, String> {
    match (price, country) {
        (price, _) if price < 0.0 => Err(format!("a price of {price}")),
        // A mistake in a function costs the event, not the process.
        (_, Some("Atlantis")) => panic!("nobody has drawn a map of it"),
        (price, Some("NL")) => Ok(price * 2.0),
        (price, _) => Ok(price),
    }
}

/// Prices in dollars. Called for many events at a time, with a list of each argument.
#[tributary::function(batch)]
pub fn dollars(price: Vec<f64>, currency: Vec<Option<String>>) -> Vec<Result<f64, String>> {
    let rate = |currency: Option<&str>| match currency.unwrap_or("USD") {
        "USD" => Ok(1.0),
        "EUR" => Ok(1.25),
        other => Err(format!("nobody knows the rate of {other}")),
    };
    price.iter().zip(&currency).map(|(price, currency)| Ok(price * rate(currency.as_deref())?)).collect()
}

/// A row of the table `deals.deal`.
#[derive(Debug, Clone, Deserialize)]
pub struct Deal {
    /// Its key.
    pub id: i64,
    /// `draft`, `signed`.
    pub status: String,
    /// The film that it is about.
    pub movie_id: i64,
}

/// What the service `catalog` knows of a film.
#[derive(Debug, Clone, Deserialize)]
pub struct Movie {
    /// Its title.
    pub title: String,
}

/// What is told of a deal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Headline {
    /// The deal.
    pub id: i64,
    /// One line.
    pub headline: String,
}

/// Deals that were signed, told in a line: a stream as attributes.
pub enum SignedDeals {}

#[tributary::stream(name = "signed-deals", from = "deals.deal", ops = ["u"], start = "first", on_error = "dead_letter")]
#[changed("status")]
#[to(topic(name = "deals.signed", key = ".id"))]
impl SignedDeals {
    /// Whether the deal is signed now.
    #[filter(name = "only-signed")]
    pub fn signed(deal: &Change<Deal>) -> bool {
        deal.after.as_ref().is_some_and(|deal| deal.status == "signed")
    }

    /// The event becomes what is told of it.
    ///
    /// # Errors
    /// There is no deal.
    #[enrich(
        service = "catalog",
        query = "movies.graphql",
        key = ".after.movie_id",
        into = ".movie",
        cache(ttl = "30s")
    )]
    #[transform]
    pub fn headline(deal: &Change<Deal>, movie: &Movie) -> Result<Headline, String> {
        let deal = deal.after.as_ref().ok_or("a deal that is signed has a row")?;
        Ok(Headline { id: deal.id, headline: format!("{} is signed", movie.title) })
    }
}

/// What is left of a deal that is large.
#[derive(Debug, Clone, Serialize)]
pub struct Large {
    /// The deal.
    pub id: i64,
    /// What it is worth.
    pub usd: f64,
}

/// Deals that are worth much, in dollars: a stream as a builder.
pub fn large_deals() -> Stream {
    Stream::named("large-deals")
        .from("deals.deal")
        .ops(["c", "u"])
        .start("first")
        .on_error("dead_letter")
        .call(Call::of::<dollars>().with(".after.price").with(".after.currency").into(".usd"))
        .filter(tributary::vrl!(".usd > 1000.0"))
        .map(|deal: Change<Deal>| -> Result<Json<Large>, String> {
            let usd = deal.added("usd")?;
            deal.after.map(|deal| Json(Large { id: deal.id, usd })).ok_or_else(|| "a deal has a row".to_owned())
        })
        .to(Topic::named("deals.large").key(".id"))
}
