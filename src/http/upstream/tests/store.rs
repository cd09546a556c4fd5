//! Responses that are kept as files.

use super::*;

/// A site that stores what `backend` sends.
fn storing(backend: &Backend, more: &str) -> Site {
    let folder = crate::http::testing::Folder::new();
    std::fs::create_dir(folder.path().join("proxy_temp")).unwrap();
    let text =
        format!("server {{ LISTEN root html; location / {{ proxy_pass http://{}; {more} }} }}", backend.addr);
    let text = text.replace("FOLDER", &folder.path().display().to_string());
    Site::with(folder, &text)
}

fn stored(site: &Site, name: &str) -> Option<String> {
    std::fs::read_to_string(site.folder.path().join(name)).ok()
}

fn temporary(site: &Site) -> usize {
    std::fs::read_dir(site.folder.path().join("proxy_temp")).map_or(0, |entries| entries.count())
}

#[test]
fn whole_responses_are_stored_where_a_file_of_the_uri_would_be() {
    let backend = Backend::says(
        "HTTP/1.1 200 OK\r\nLast-Modified: Thu, 01 Jan 1970 00:01:40 GMT\r\nContent-Length: 4\r\n\r\nbody",
    );
    let site = storing(&backend, "proxy_store on; proxy_store_access user:rw group:r;");
    assert_eq!(site.get("/deep/er/a.txt").text(), "body");
    assert_eq!(stored(&site, "html/deep/er/a.txt").as_deref(), Some("body"));
    let path = site.folder.path().join("html/deep/er/a.txt");
    let data = std::fs::metadata(path).unwrap();
    let modified = data.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(modified.as_secs(), 100);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o777, 0o640);

    assert_eq!(site.ask("HEAD", "/head.txt", "").status, 200);
    assert_eq!(stored(&site, "html/head.txt"), None);
    assert_eq!(temporary(&site), 0);
}

#[test]
fn only_complete_responses_of_status_200_are_stored() {
    let backend = Backend::new(|request, stream| {
        let answer = match request.split(' ').nth(1).unwrap() {
            "/404" => "HTTP/1.1 404 None\r\nContent-Length: 1\r\n\r\nx",
            "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\n\r\n",
        };
        let _ = stream.write_all(answer.as_bytes());
        false
    });
    let site = storing(&backend, "proxy_store FOLDER/kept$uri;");
    for path in ["/404", "/short", "/chunked", "/empty"] {
        site.raw(&format!("GET {path} HTTP/1.0\r\n\r\n"));
    }
    let kept = |name: &str| stored(&site, &format!("kept/{name}"));
    assert_eq!(kept("404"), None);
    assert_eq!(kept("short"), None);
    assert_eq!(kept("chunked").as_deref(), Some("x"));
    assert_eq!(kept("empty").as_deref(), Some(""));
    assert_eq!(temporary(&site), 0);
}

#[test]
fn a_client_that_leaves_does_not_keep_a_response_from_being_stored() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let backend = Backend::new(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n");
        let _ = stream.write_all(&[b'a'; 100_000]);
        let _ = gone.lock().unwrap().recv();
        let _ = stream.write_all(&[b'b'; 100_000]);
        false
    });
    let site = storing(&backend, "proxy_store on;");
    let mut client = TcpStream::connect(site.addr).unwrap();
    client.write_all(b"GET /long HTTP/1.0\r\n\r\n").unwrap();
    let mut some = [0; 1000];
    client.read_exact(&mut some).unwrap();
    drop(client);
    go.send(()).unwrap();
    wait("the stored file", || stored(&site, "html/long").is_some());
    assert_eq!(stored(&site, "html/long").unwrap().len(), 200_000);
    assert_eq!(temporary(&site), 0);
}
