//! A setting: its value, and whether the block said it or inherits it.

use std::fmt;
use std::ops::Deref;

use super::{Build, Fault, Outcome};

/// A value with nginx's default until a block sets it; reads as the value itself.
#[derive(Clone, Copy)]
pub struct Setting<T> {
    value: T,
    set: bool,
}

impl<T> Setting<T> {
    /// Not set; reads as `value`.
    pub const fn unset(value: T) -> Setting<T> {
        Setting { value, set: false }
    }

    /// Whether the block itself, or one it inherits from, said it.
    pub fn is_set(&self) -> bool {
        self.set
    }

    /// Sets it; twice in one block is a fault.
    pub fn set(&mut self, value: T) -> Outcome {
        if self.set {
            return Err(Fault::directive("is duplicate"));
        }
        self.put(value);
        Ok(())
    }

    /// Fails where it is set already; for directives that check before they read their arguments.
    pub fn once(&self) -> Outcome {
        if self.set { Err(Fault::directive("is duplicate")) } else { Ok(()) }
    }

    /// Sets it, no matter what was there.
    pub fn put(&mut self, value: T) {
        self.value = value;
        self.set = true;
    }

    /// The value to change in place, which then counts as set (lists).
    pub fn edit(&mut self) -> &mut T {
        self.set = true;
        &mut self.value
    }

    /// Takes the parent's value where this block said nothing.
    pub fn inherit(&mut self, parent: &Setting<T>)
    where
        T: Clone,
    {
        if !self.set {
            self.value = parent.value.clone();
            self.set = parent.set;
        }
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// One module's settings at one level (main, server or location).
pub trait Conf: Default + Clone + Send + Sync + 'static {
    /// Completes what the block set with what its parent has. Called only where the block set something.
    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome;

    /// Checks the complete settings of a server or of a block in it. The http block's own are not checked: they
    /// matter where a server has them.
    fn check(&self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Conf for () {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

/// Declares a struct of settings with their defaults, and `inherit`, which merges field by field.
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $field:ident: $ty:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name { $($(#[$doc])* pub $field: $crate::conf::Setting<$ty>,)* }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $crate::conf::Setting::unset($default),)* }
            }
        }

        impl $name {
            /// Takes from the parent what this block did not set.
            pub fn inherit(&mut self, parent: &Self) {
                $(self.$field.inherit(&parent.$field);)*
            }
        }
    };
}
