//! What the signature of a function says: its parameters, and what it answers.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericArgument, Pat, PathArguments, Result, ReturnType, Signature, Type};

/// A parameter, by its name.
pub struct Parameter<'a> {
    pub name: String,
    pub ty: &'a Type,
}

/// The parameters of a function that a pipeline can call.
pub fn parameters(signature: &Signature) -> Result<Vec<Parameter<'_>>> {
    let refuse = |span: Span, why: &str| Err(Error::new(span, why));
    if let Some(word) = &signature.asyncness {
        return refuse(
            word.span(),
            "a function of a pipeline cannot wait: what is asked over the network is a service (`enrich`)",
        );
    }
    if !signature.generics.params.is_empty() {
        return refuse(
            signature.generics.span(),
            "a function of a pipeline has no parameters of types: name the types",
        );
    }
    signature.inputs.iter().map(parameter).collect()
}

fn parameter(argument: &FnArg) -> Result<Parameter<'_>> {
    let typed = match argument {
        FnArg::Typed(typed) => typed,
        FnArg::Receiver(receiver) => return Err(Error::new(receiver.span(), "a function of a pipeline has no `self`")),
    };
    match &*typed.pat {
        Pat::Ident(name) => {
            let name = name.ident.to_string().trim_start_matches('_').to_owned();
            Ok(Parameter { name, ty: &typed.ty })
        }
        other => Err(Error::new(other.span(), "give the parameter a name, which programs can call it by")),
    }
}

/// The only argument of a generic type of a name: `T` of `Vec<T>`.
pub fn argument_of<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    arguments_of(ty, name).and_then(|mut arguments| arguments.next())
}

/// The arguments of a generic type of a name.
pub fn arguments_of<'a>(ty: &'a Type, name: &str) -> Option<impl Iterator<Item = &'a Type>> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    Some(arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    }))
}

/// Whether a type has this name, whatever its path and arguments.
pub fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

/// What a function answers; none: nothing.
pub fn answer(signature: &Signature) -> Option<&Type> {
    match &signature.output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => Some(ty),
    }
}
