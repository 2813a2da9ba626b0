//! What a function may return instead of what it works out.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{GenericArgument, PathArguments, ReturnType, Type, TypePath, TypeReference};

/// Returns the values that stand for a function's result; none where none can be written down.
pub fn of(result: &ReturnType) -> Vec<TokenStream> {
    match result {
        ReturnType::Default => vec![quote!(())],
        ReturnType::Type(_, kind) => of_type(kind),
    }
}

fn of_type(kind: &Type) -> Vec<TokenStream> {
    match kind {
        Type::Path(path) => of_path(path),
        Type::Reference(reference) => of_reference(reference),
        Type::Paren(inner) => of_type(&inner.elem),
        Type::Array(array) => wrap(&array.elem, |value| {
            let length = &array.len;
            quote!([#value; #length])
        }),
        Type::Tuple(tuple) => tuple
            .elems
            .iter()
            .fold(vec![TokenStream::new()], |fronts, kind| {
                let values = of_type(kind);
                let all = fronts
                    .iter()
                    .flat_map(|front| values.iter().map(move |value| quote!(#front #value,)));
                all.collect()
            })
            .into_iter()
            .map(|values| quote!((#values)))
            .collect(),
        _ => Vec::new(),
    }
}

fn of_path(path: &TypePath) -> Vec<TokenStream> {
    let Some(last) = path.path.segments.last() else {
        return Vec::new();
    };
    let inner = argument(&last.arguments);
    match (last.ident.to_string().as_str(), inner) {
        ("bool", _) => vec![quote!(true), quote!(false)],
        ("String", _) => vec![quote!(String::new()), quote!("xyzzy".into())],
        ("u8" | "u16" | "u32" | "u64" | "u128" | "usize", _) => vec![quote!(0), quote!(1)],
        ("i8" | "i16" | "i32" | "i64" | "i128" | "isize", _) => {
            vec![quote!(0), quote!(1), quote!(-1)]
        }
        ("f32" | "f64", _) => vec![quote!(0.0), quote!(1.0), quote!(-1.0)],
        ("Result", Some(inner)) => wrap(inner, |value| quote!(Ok(#value))),
        ("Result", None) => vec![quote!(Ok(Default::default()))],
        ("Option", Some(inner)) => [quote!(None)]
            .into_iter()
            .chain(wrap(inner, |value| quote!(Some(#value))))
            .collect(),
        ("Vec", Some(inner)) => [quote!(Vec::new())]
            .into_iter()
            .chain(wrap(inner, |value| quote!(vec![#value])))
            .collect(),
        ("Box", Some(inner)) => wrap(inner, |value| quote!(Box::new(#value))),
        ("Arc", Some(inner)) => wrap(inner, |value| quote!(std::sync::Arc::new(#value))),
        _ => vec![quote!(Default::default())],
    }
}

fn of_reference(reference: &TypeReference) -> Vec<TokenStream> {
    match (&*reference.elem, reference.mutability) {
        (Type::Path(path), None) if path.path.is_ident("str") => vec![quote!(""), quote!("xyzzy")],
        (Type::Slice(slice), _) => [quote!(Vec::leak(Vec::new()))]
            .into_iter()
            .chain(wrap(&slice.elem, |value| quote!(Vec::leak(vec![#value]))))
            .collect(),
        (kind, _) => wrap(kind, |value| quote!(Box::leak(Box::new(#value)))),
    }
}

fn wrap(inner: &Type, make: impl Fn(TokenStream) -> TokenStream) -> Vec<TokenStream> {
    of_type(inner).into_iter().map(make).collect()
}

/// The first type among the arguments of a type.
fn argument(arguments: &PathArguments) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(kind) => Some(kind),
        _ => None,
    })
}
