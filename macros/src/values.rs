//! Arguments of attributes as values of a pipeline: `cache(ttl = "30s")`, `ops = ["c", "u"]`. Which keys there are is not known here; whoever
//! reads the stream says what is wrong with them.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Expr, Ident, LitStr, Result, Token, parenthesized, token};

/// What stands in the brackets of an attribute.
pub struct Arguments(pub Vec<Argument>);

/// One of them.
pub enum Argument {
    /// A value without a key.
    Plain(Expr),
    /// A key and its value.
    Keyed(Ident, Expr),
    /// A key and what is inside of it.
    Inside(Ident, Arguments),
}

impl Parse for Arguments {
    fn parse(input: ParseStream) -> Result<Self> {
        Ok(Self(Punctuated::<Argument, Token![,]>::parse_terminated(input)?.into_iter().collect()))
    }
}

impl Parse for Argument {
    fn parse(input: ParseStream) -> Result<Self> {
        // `match` is a key too.
        if input.peek(Ident::peek_any) {
            let ahead = input.fork();
            let _: Ident = ahead.call(Ident::parse_any)?;
            if ahead.peek(Token![=]) && !ahead.peek(Token![==]) {
                let key = input.call(Ident::parse_any)?;
                input.parse::<Token![=]>()?;
                return Ok(Self::Keyed(key, input.parse()?));
            }
            if ahead.peek(token::Paren) {
                let key = input.call(Ident::parse_any)?;
                let inside;
                parenthesized!(inside in input);
                return Ok(Self::Inside(key, inside.parse()?));
            }
        }
        Ok(Self::Plain(input.parse()?))
    }
}

impl Arguments {
    /// As keys with values.
    pub fn keys(&self, span: Span) -> Result<TokenStream> {
        let mut keys = quote_spanned!(span=> ::tributary::written::Written::keys());
        for argument in &self.0 {
            let (key, value) = argument.entry()?;
            keys = quote_spanned!(key.span()=> #keys.with(#key, #value));
        }
        Ok(keys)
    }
}

impl Argument {
    /// The key and the value.
    pub fn entry(&self) -> Result<(LitStr, TokenStream)> {
        let named = |key: &Ident| LitStr::new(&key.unraw().to_string(), key.span());
        match self {
            Self::Plain(value) => Err(syn::Error::new(value.span(), "expected a key: `name = \"…\"`")),
            Self::Keyed(key, value) => Ok((named(key), self::value(value))),
            Self::Inside(key, inside) => Ok((named(key), inside.keys(key.span())?)),
        }
    }
}

/// A value.
pub fn value(of: &Expr) -> TokenStream {
    let span = of.span();
    match of {
        Expr::Array(array) => {
            let values = array.elems.iter().map(value);
            quote_spanned!(span=> ::tributary::written::Written::list([#(#values),*]))
        }
        of => {
            let of = quote!(#of);
            quote_spanned!(span=> ::tributary::written::Written::from(#of))
        }
    }
}
