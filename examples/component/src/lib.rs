//! What a deal is worth: `score(price, country)` of many events at a time. Built with `cargo build --release --target wasm32-wasip2`.

#![allow(missing_docs)]

use std::collections::HashMap;

wit_bindgen::generate!({ path: "../../wasm/wit", world: "function" });

struct Score;

export!(Score);

impl Guest for Score {
    fn call(events: Vec<u8>) -> Result<Vec<u8>, String> {
        let events: Vec<(f64, Option<String>)> = serde_json::from_slice(&events).map_err(|e| e.to_string())?;
        let weights = HashMap::from([("NL", 2.0), ("BE", 1.5)]);
        let score = |(price, country): (f64, Option<String>)| {
            if price < 0.0 {
                return Err(format!("a price of {price}"));
            }
            let weight = country.and_then(|country| weights.get(country.as_str()).copied());
            Ok(price * weight.unwrap_or(1.0))
        };
        let scores: Vec<f64> = events.into_iter().map(score).collect::<Result<_, _>>()?;
        serde_json::to_vec(&scores).map_err(|e| e.to_string())
    }
}
