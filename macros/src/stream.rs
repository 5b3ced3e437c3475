//! `#[stream]`: an `impl` with its functions, and beside it the stream that its attributes define.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, ImplItem, ImplItemFn, ItemImpl, Meta, Result, Type, parse_quote};

use crate::signature::{Parameter, answer, argument_of, arguments_of, is_named, parameters};
use crate::values::{Argument, Arguments, value};

/// What a step or a sink is called.
const WORDS: [&str; 8] = ["changed", "filter", "transform", "enrich", "lookup", "call", "split", "to"];

pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let mut item: ItemImpl = syn::parse2(item)?;
    let mut stream = named(&arguments)?;
    for attribute in taken(&mut item.attrs) {
        stream = part(stream, &attribute, None)?;
    }
    for inside in &mut item.items {
        if let ImplItem::Fn(function) = inside {
            for attribute in taken(&mut function.attrs) {
                stream = part(stream, &attribute, Some(function))?;
            }
        }
    }
    let (of, generics) = (&item.self_ty, &item.generics);
    Ok(quote! {
        #item

        impl #generics ::tributary::written::Defined for #of {
            fn stream() -> ::tributary::written::Stream {
                #stream
            }
        }
    })
}

/// The stream with its own keys.
fn named(arguments: &Arguments) -> Result<TokenStream> {
    let is_name = |argument: &&Argument| matches!(argument, Argument::Keyed(key, _) if key == "name");
    let Some(Argument::Keyed(key, name)) = arguments.0.iter().find(is_name) else {
        return Err(Error::new(
            Span::call_site(),
            "a stream has a name: `#[stream(name = \"signed-deals\", from = \"deals.deal\")]`",
        ));
    };
    let mut stream = quote_spanned!(key.span()=> ::tributary::written::Stream::named(#name));
    for argument in arguments.0.iter().filter(|argument| !is_name(argument)) {
        let (key, value) = argument.entry()?;
        stream = quote_spanned!(key.span()=> #stream.with(#key, #value));
    }
    Ok(stream)
}

/// Takes those attributes that are ours.
fn taken(attributes: &mut Vec<Attribute>) -> Vec<Attribute> {
    let is_ours = |attribute: &Attribute| WORDS.iter().any(|word| attribute.path().is_ident(word));
    let (ours, others) = std::mem::take(attributes).into_iter().partition(is_ours);
    *attributes = others;
    ours
}

/// The stream with one more step, or sink.
fn part(stream: TokenStream, attribute: &Attribute, below: Option<&ImplItemFn>) -> Result<TokenStream> {
    let kind = attribute.path().require_ident()?;
    let (span, word) = (kind.span(), kind.to_string());
    let arguments = match &attribute.meta {
        Meta::Path(_) => Arguments(Vec::new()),
        Meta::List(list) => syn::parse2(list.tokens.clone())?,
        Meta::NameValue(pair) => Arguments(vec![Argument::Plain(pair.value.clone())]),
    };
    if word == "to" {
        let sink = arguments.keys(span)?;
        return Ok(quote_spanned!(span=> #stream.sink(#sink)));
    }
    let of_the_step =
        |argument: &&Argument| matches!(argument, Argument::Keyed(key, _) if key == "on_error" || key == "name");
    let mut also = TokenStream::new();
    for argument in arguments.0.iter().filter(of_the_step) {
        let (key, value) = argument.entry()?;
        also = quote_spanned!(key.span()=> #also.and(#key, #value));
    }
    let (mut plain, mut keyed) = (Vec::new(), Vec::new());
    for argument in arguments.0.into_iter().filter(|argument| !of_the_step(&argument)) {
        match argument {
            Argument::Plain(value) => plain.push(value),
            other => keyed.push(other),
        }
    }
    let step = match (plain.as_slice(), keyed.is_empty()) {
        ([], true) if word == "filter" || word == "transform" => {
            let Some(below) = below else {
                let message = format!("write a program, `#[{word}(\"…\")]`, or let a function follow");
                return Err(Error::new(span, message));
            };
            let (function, names) = function(below, kind)?;
            quote_spanned!(span=> #stream.by(#word, #function, &[#(#names),*]))
        }
        ([one], true) if word != "changed" => {
            let one = value(one);
            quote_spanned!(span=> #stream.step(#word, #one))
        }
        ([_, ..], true) => {
            let values = plain.iter().map(value);
            quote_spanned!(span=> #stream.step(#word, ::tributary::written::Written::list([#(#values),*])))
        }
        ([], _) => {
            let keys = Arguments(keyed).keys(span)?;
            quote_spanned!(span=> #stream.step(#word, #keys))
        }
        ([_, ..], false) => return Err(Error::new(span, "expected values, or keys with values, and not both")),
    };
    Ok(quote!(#step #also))
}

/// How an argument of a function is read, and handed to it.
fn read(parameter: &Parameter, place: usize) -> (Type, TokenStream) {
    let (name, ty) = (&parameter.name, parameter.ty);
    let span = ty.span();
    let read = |ty: &Type| quote_spanned!(span=> ::tributary::functions::read::<#ty>(#name, arguments, #place)?);
    if let Type::Reference(reference) = ty {
        let inner = &*reference.elem;
        if is_named(inner, "Change") {
            let read = read(inner);
            return (inner.clone(), quote_spanned!(span=> &#read));
        }
        if !is_named(inner, "str") && !is_named(inner, "Value") {
            // What has fields, by way of serde.
            let json: Type = parse_quote!(::tributary::functions::Json<#inner>);
            let read = read(&json);
            return (json, quote_spanned!(span=> &#read.0));
        }
    }
    (ty.clone(), read(ty))
}

/// The function that is a step, and the names of what it is given beside the event.
fn function(below: &ImplItemFn, kind: &Ident) -> Result<(TokenStream, Vec<String>)> {
    let (signature, name) = (&below.sig, below.sig.ident.to_string());
    let parameters = parameters(signature)?;
    if parameters.is_empty() {
        return Err(Error::new(
            signature.ident.span(),
            format!("a {kind} is given the event: `fn {name}(event: &Change<Row>)`"),
        ));
    }
    let nothing: Type = parse_quote!(());
    let answered = answer(signature).unwrap_or(&nothing);
    let ident = &signature.ident;
    let reads: Vec<(Type, TokenStream)> = parameters.iter().enumerate().map(|(place, p)| read(p, place)).collect();
    let (types, values): (Vec<Type>, Vec<TokenStream>) = reads.into_iter().unzip();
    let called = quote!(Self::#ident(#(#values),*));
    let (outcome, made): (Type, TokenStream) = match kind == "transform" {
        true if is_named(answered, "Json") || is_named(answered, "Value") => (answered.clone(), called),
        true if is_named(answered, "Result") => {
            let inner = argument_of(answered, "Result").unwrap_or(&nothing);
            let error = arguments_of(answered, "Result").and_then(|mut arguments| arguments.nth(1));
            let Some(error) = error.filter(|_| !is_named(inner, "Json") && !is_named(inner, "Value")) else {
                return Ok((signed(&name, &parameters, &types, answered, &called), names(&parameters)));
            };
            let json = parse_quote!(::core::result::Result<::tributary::functions::Json<#inner>, #error>);
            (json, quote!(#called.map(::tributary::functions::Json)))
        }
        true => (parse_quote!(::tributary::functions::Json<#answered>), quote!(::tributary::functions::Json(#called))),
        false => (answered.clone(), called),
    };
    Ok((signed(&name, &parameters, &types, &outcome, &made), names(&parameters)))
}

fn names(parameters: &[Parameter]) -> Vec<String> {
    parameters.iter().skip(1).map(|parameter| parameter.name.clone()).collect()
}

fn signed(name: &str, parameters: &[Parameter], types: &[Type], outcome: &Type, made: &TokenStream) -> TokenStream {
    let declared = parameters.iter().zip(types).map(|(parameter, ty)| {
        let name = &parameter.name;
        quote_spanned!(parameter.ty.span()=> .parameter(#name, <#ty as ::tributary::functions::Argument>::takes()))
    });
    let can_fail = types.iter().map(|ty| quote!(|| <#ty as ::tributary::functions::Argument>::CAN_FAIL));
    let outcome = quote_spanned!(outcome.span()=> <#outcome as ::tributary::functions::Outcome>);
    quote! {
        ::tributary::functions::Signature::new(#name) #(#declared)*
            .answers(#outcome::answers(), #outcome::CAN_FAIL #(#can_fail)*)
            .each(|arguments| #outcome::made(#made))
    }
}
