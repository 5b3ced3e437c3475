//! `#[function]`: the function as it is, and beside it a type that declares it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Ident, ItemFn, Result, Type, parse_quote};

use crate::signature::{Parameter, answer, argument_of, parameters};

pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let is_batch = match syn::parse2::<Option<Ident>>(arguments)? {
        None => false,
        Some(word) if word == "batch" => true,
        Some(other) => return Err(Error::new(other.span(), "expected nothing, or `batch`")),
    };
    let item: ItemFn = syn::parse2(item)?;
    let (visibility, name) = (&item.vis, &item.sig.ident);
    let parameters = parameters(&item.sig)?;
    let nothing: Type = parse_quote!(());
    let answer = answer(&item.sig).unwrap_or(&nothing);
    let function = match is_batch {
        false => each(name, &parameters, answer),
        true => batch(name, &parameters, answer)?,
    };
    let doc = format!("The function `{name}`, as pipelines are told of it.");
    Ok(quote! {
        #item

        #[doc = #doc]
        #[allow(non_camel_case_types, dead_code)]
        #visibility struct #name {}

        impl ::tributary::functions::Declared for #name {
            fn function() -> ::tributary::functions::Function {
                #function
            }
        }
    })
}

/// The start of a signature, with its parameters.
fn begun(name: &Ident, parameters: &[(&str, &Type)]) -> TokenStream {
    let name = name.to_string();
    let parameters = parameters.iter().map(
        |(name, ty)| quote_spanned!(ty.span()=> .parameter(#name, <#ty as ::tributary::functions::Argument>::takes())),
    );
    quote!(::tributary::functions::Signature::new(#name) #(#parameters)*)
}

fn can_fail<'a>(types: impl Iterator<Item = &'a Type>) -> TokenStream {
    let parts = types.map(|ty| quote_spanned!(ty.span()=> || <#ty as ::tributary::functions::Argument>::CAN_FAIL));
    quote!(#(#parts)*)
}

fn each(name: &Ident, parameters: &[Parameter], answer: &Type) -> TokenStream {
    let named: Vec<(&str, &Type)> = parameters.iter().map(|p| (p.name.as_str(), p.ty)).collect();
    let (begun, can_fail) = (begun(name, &named), can_fail(parameters.iter().map(|p| p.ty)));
    let reads = named.iter().enumerate().map(|(place, (name, ty))| {
        quote_spanned!(ty.span()=> ::tributary::functions::read::<#ty>(#name, arguments, #place)?)
    });
    let outcome = quote_spanned!(answer.span()=> <#answer as ::tributary::functions::Outcome>);
    quote! {
        #begun
            .answers(#outcome::answers(), #outcome::CAN_FAIL #can_fail)
            .each(|arguments| #outcome::made(#name(#(#reads),*)))
    }
}

fn batch(name: &Ident, parameters: &[Parameter], answer: &Type) -> Result<TokenStream> {
    if parameters.is_empty() {
        return Err(Error::new(name.span(), "a function that is called for many events has a parameter, a `Vec`"));
    }
    let element = |parameter: &Parameter<'_>| {
        let message =
            "of a function that is called for many events every parameter is a `Vec`, with an element for each of them";
        argument_of(parameter.ty, "Vec").cloned().ok_or_else(|| Error::new(parameter.ty.span(), message))
    };
    let types: Vec<Type> = parameters.iter().map(element).collect::<Result<_>>()?;
    let named: Vec<(&str, &Type)> = parameters.iter().map(|p| p.name.as_str()).zip(&types).collect();
    let (begun, can_fail) = (begun(name, &named), can_fail(types.iter()));
    let reads = named.iter().enumerate().map(|(place, (name, ty))| {
        quote_spanned!(ty.span()=> ::tributary::functions::read::<#ty>(#name, arguments, #place)?)
    });
    let columns: Vec<Ident> = (0..named.len()).map(|place| format_ident!("column_{place}")).collect();
    let cells: Vec<Ident> = (0..named.len()).map(|place| format_ident!("cell_{place}")).collect();
    let answers = quote_spanned!(answer.span()=> <#answer as ::tributary::functions::Answers>);
    Ok(quote! {
        #begun
            .answers(#answers::answers(), #answers::CAN_FAIL #can_fail)
            .together(|calls| {
                ::tributary::functions::each_read(
                    calls,
                    |arguments| ::core::result::Result::Ok((#(#reads,)*)),
                    |rows| {
                        #(let mut #columns = ::std::vec::Vec::with_capacity(rows.len());)*
                        for (#(#cells,)*) in rows {
                            #(#columns.push(#cells);)*
                        }
                        #answers::made(#name(#(#columns),*))
                    },
                )
            })
    })
}
