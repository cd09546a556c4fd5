//! What blocks inherit, and what is checked once they are complete.

use super::cache::sibling;
use super::{Value, Values};
use crate::conf::{Build, Fault, Outcome};

/// Modules that speak TLS to upstreams.
const TLS: [&str; 1] = ["grpc"];
/// Where values with variables are compiled when blocks are merged.
const PAIRS: [&str; 1] = ["grpc_set_header"];

/// Completes a block with its parent's values.
pub fn merge(own: &mut Values, parent: &Values) {
    for (name, value) in &parent.said {
        // Locations do not inherit where requests go; of a cache and a store, a block that has one has not the other.
        let other = match () {
            _ if name.ends_with("_pass") => continue,
            _ if name.ends_with("_cache") => Some(sibling(name, "cache", "store")),
            _ if name.ends_with("_store") => Some(sibling(name, "store", "cache")),
            _ => None,
        };
        let is_replaced = other.is_some_and(|other| own.flag(&other));
        if !own.said.contains_key(name) && !is_replaced {
            own.said.insert(name, value.clone());
            if let Some(zone) = parent.zones.get(name) {
                own.zones.insert(name, zone.clone());
            }
        }
    }
}

/// Checks a block's values together.
pub fn check(values: &Values, cf: &mut Build) -> Outcome {
    if values.said.is_empty() {
        return Ok(());
    }
    for (name, zone) in &values.zones {
        zone_is_known(name, zone, cf)?;
    }
    for name in PAIRS {
        if let Some(Value::Pairs(pairs)) = values.said.get(name) {
            for (_, value) in pairs {
                cf.http.template(value)?;
            }
        }
    }
    TLS.into_iter().try_for_each(|family| tls(values, family))
}

fn zone_is_known(name: &&'static str, zone: &[u8], cf: &mut Build) -> Outcome {
    let is_known = cf.checked.caches.iter().any(|(module, known)| {
        known == zone && module.strip_prefix("ngx_http_").is_some_and(|module| name.starts_with(module))
    });
    match is_known {
        true => Ok(()),
        false => {
            let zone = String::from_utf8_lossy(zone);
            Err(Fault::here(format!("\"{name}\" zone \"{zone}\" is unknown")))
        }
    }
}

fn tls(values: &Values, family: &str) -> Outcome {
    if !values.flag(&format!("{family}_pass")) {
        return Ok(());
    }
    let text_of = |rest: &str| match values.said.get(format!("{family}_ssl_{rest}").as_str()) {
        Some(Value::Text(text)) if !text.is_empty() => Some(String::from_utf8_lossy(text)),
        _ => None,
    };
    if let Some(certificate) = text_of("certificate")
        && text_of("certificate_key").is_none()
    {
        return Err(Fault::whole(format!(
            "no \"{family}_ssl_certificate_key\" is defined for certificate \"{certificate}\""
        )));
    }
    if values.flag(&format!("{family}_ssl_verify")) && text_of("trusted_certificate").is_none() {
        return Err(Fault::whole(format!("no {family}_ssl_trusted_certificate for {family}_ssl_verify")));
    }
    Ok(())
}
