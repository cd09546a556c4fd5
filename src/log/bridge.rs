//! What the libraries beneath report by way of `tracing`, for an error log at level debug.

use super::{Level, error, main};
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Sends warnings and errors of libraries to the main error log, when that takes debug messages.
pub fn forward_tracing() {
    // It fails only when a subscriber is set already, which then is this one.
    let _ = tracing::subscriber::set_global_default(Bridge);
}

struct Bridge;

/// Collects the fields of an event: the message first, the others as ` name=value`.
#[derive(Default)]
struct Fields(String);

impl Subscriber for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::WARN && main().enabled(Level::Debug)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The main log may change, so what could matter is asked each time; the rest never again.
        if metadata.is_event() && *metadata.level() <= tracing::Level::WARN {
            tracing::subscriber::Interest::sometimes()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        error(&main(), Level::Debug, None, format_args!("{}: {}", event.metadata().target(), fields.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}
