//! The setters of directives that all modules have which pass requests on.

/// Those of a module whose directives begin with `$prefix`; `$up` gives the [`Settings`] of the block being read,
/// `$next` the words of `*_next_upstream`.
///
/// [`Settings`]: crate::http::upstream::Settings
#[macro_export]
macro_rules! upstream_setters {
    ($prefix:literal, $up:path, $next:expr) => {{
        use bytes::Bytes;
        use $crate::conf::build::Setter;
        use $crate::conf::set;
        use $crate::http::upstream::Settings;
        use $crate::http::upstream::settings::ignore;
        const SETTERS: &[(&str, Setter)] = &[
            (concat!($prefix, "_buffering"), |cf, d| set::flag(&mut $up(cf).buffering, d)),
            (concat!($prefix, "_request_buffering"), |cf, d| set::flag(&mut $up(cf).request_buffering, d)),
            (concat!($prefix, "_ignore_client_abort"), |cf, d| {
                set::flag(&mut $up(cf).ignore_client_abort, d)
            }),
            (concat!($prefix, "_bind"), |cf, d| Settings::set_local(cf, d, $up)),
            (concat!($prefix, "_socket_keepalive"), |cf, d| set::flag(&mut $up(cf).socket_keepalive, d)),
            (concat!($prefix, "_socket_rcvbuf"), |cf, d| set::size(&mut $up(cf).socket_rcvbuf, d)),
            (concat!($prefix, "_socket_sndbuf"), |cf, d| set::size(&mut $up(cf).socket_sndbuf, d)),
            (concat!($prefix, "_connect_timeout"), |cf, d| set::msec(&mut $up(cf).connect_timeout, d)),
            (concat!($prefix, "_send_timeout"), |cf, d| set::msec(&mut $up(cf).send_timeout, d)),
            (concat!($prefix, "_intercept_errors"), |cf, d| set::flag(&mut $up(cf).intercept_errors, d)),
            (concat!($prefix, "_pass_request_headers"), |cf, d| {
                set::flag(&mut $up(cf).pass_request_headers, d)
            }),
            (concat!($prefix, "_pass_request_body"), |cf, d| set::flag(&mut $up(cf).pass_request_body, d)),
            (concat!($prefix, "_buffer_size"), |cf, d| set::size(&mut $up(cf).buffer_size, d)),
            (concat!($prefix, "_read_timeout"), |cf, d| set::msec(&mut $up(cf).read_timeout, d)),
            (concat!($prefix, "_buffers"), |cf, d| set::buffers(&mut $up(cf).buffers, d)),
            (concat!($prefix, "_busy_buffers_size"), |cf, d| set::size(&mut $up(cf).busy_buffers_size, d)),
            (concat!($prefix, "_force_ranges"), |cf, d| set::flag(&mut $up(cf).force_ranges, d)),
            (concat!($prefix, "_limit_rate"), |cf, d| Settings::set_limit_rate(cf, d, $up)),
            (concat!($prefix, "_temp_path"), |cf, d| {
                Settings::set_temp_path(cf, d, concat!($prefix, "_temp_path"), $up)
            }),
            (concat!($prefix, "_store"), |cf, d| Settings::set_store(cf, d, concat!($prefix, "_store"), $up)),
            (concat!($prefix, "_store_access"), |cf, d| set::access(&mut $up(cf).store_access, d)),
            (concat!($prefix, "_max_temp_file_size"), |cf, d| set::size(&mut $up(cf).max_temp_file_size, d)),
            (concat!($prefix, "_temp_file_write_size"), |cf, d| {
                set::size(&mut $up(cf).temp_file_write_size, d)
            }),
            (concat!($prefix, "_next_upstream"), |cf, d| {
                Settings::set_bits(cf, d, $next, |cf| &mut $up(cf).next_upstream)
            }),
            (concat!($prefix, "_next_upstream_tries"), |cf, d| {
                set::number(&mut $up(cf).next_upstream_tries, d)
            }),
            (concat!($prefix, "_next_upstream_timeout"), |cf, d| {
                set::msec(&mut $up(cf).next_upstream_timeout, d)
            }),
            (concat!($prefix, "_pass_header"), |cf, d| {
                $up(cf).pass_headers.edit().push(Bytes::copy_from_slice(d.arg(1)));
                Ok(())
            }),
            (concat!($prefix, "_hide_header"), |cf, d| {
                $up(cf).hide_headers.edit().push(Bytes::copy_from_slice(d.arg(1)));
                Ok(())
            }),
            (concat!($prefix, "_ignore_headers"), |cf, d| {
                Settings::set_bits(cf, d, ignore::WORDS, |cf| &mut $up(cf).ignore_headers)
            }),
        ];
        SETTERS
    }};
}
