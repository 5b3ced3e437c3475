//! Attributes that make functions and streams of users out of Rust: `#[tributary::function]`, `#[tributary::stream]`, and `vrl!`, which lets a
//! program know its line. What they write calls what anybody may call by hand: `tributary::functions` and `tributary::written`.

mod function;
mod signature;
mod stream;
mod values;

use proc_macro::TokenStream;
use quote::quote_spanned;
use syn::{LitStr, parse_macro_input};

/// Makes a function that programs and steps of a pipeline may call.
///
/// Beside the function `score` stands the type `score` then, by which it is handed on: `Functions::new().function::<score>()`. Its
/// parameters and its answer are of types that implement `Argument` and `Outcome`. With `#[function(batch)]` every parameter is a `Vec`,
/// and so is the answer: it is called once for many events.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a stream of an `impl`: `Functions::new().stream::<SignedDeals>()`.
///
/// The attribute's arguments are the keys of a stream. Attributes of the `impl` and of its functions are its steps and sinks, from the top
/// down: `changed`, `filter`, `transform`, `enrich`, `lookup`, `call`, `split`, `to`. A `filter` or a `transform` without arguments is the
/// function below it, which is given the event first, and then what lies in the event under the names of its other parameters.
#[proc_macro_attribute]
pub fn stream(arguments: TokenStream, item: TokenStream) -> TokenStream {
    stream::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// A program in VRL whose lines are those of the file that it is written in.
#[proc_macro]
pub fn vrl(program: TokenStream) -> TokenStream {
    let program = parse_macro_input!(program as LitStr);
    quote_spanned!(program.span()=> ::tributary::written::vrl(#program)).into()
}
