//! Which type a request goes to: by host, then by path prefix of whole segments, the longest first. A route that
//! names the host comes before those that don't.

use std::collections::HashMap;

use wasmhost_config::Route;

/// Routes to `T`.
pub(crate) struct Router<T> {
    by_host: HashMap<String, Vec<(String, T)>>,
    any_host: Vec<(String, T)>,
}

impl<T> Router<T> {
    pub(crate) fn new(routes: impl IntoIterator<Item = (Route, T)>) -> Self {
        let mut router = Router { by_host: HashMap::new(), any_host: Vec::new() };
        for (route, to) in routes {
            match route.host {
                Some(host) => router.by_host.entry(host).or_default().push((route.path, to)),
                None => router.any_host.push((route.path, to)),
            }
        }
        let longest_first =
            |routes: &mut Vec<(String, T)>| routes.sort_by_key(|(path, _)| usize::MAX - path.len());
        router.by_host.values_mut().for_each(longest_first);
        longest_first(&mut router.any_host);
        router
    }

    /// `authority` is the request's, with or without a port.
    pub(crate) fn find(&self, authority: &str, path: &str) -> Option<&T> {
        let named = match self.by_host.is_empty() {
            true => None,
            false => self.by_host.get(&host_of(authority).to_ascii_lowercase()),
        };
        named.and_then(|routes| first(routes, path)).or_else(|| first(&self.any_host, path))
    }
}

fn first<'a, T>(routes: &'a [(String, T)], path: &str) -> Option<&'a T> {
    routes.iter().find(|(prefix, _)| is_below(path, prefix)).map(|(_, to)| to)
}

fn is_below(path: &str, prefix: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `Example.com:8080` -> `Example.com`, `[::1]:80` -> `[::1]`
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let path = if path.is_empty() { "/" } else { path };
        Route { host: (!host.is_empty()).then(|| host.to_owned()), path: path.to_owned() }
    }

    fn find(routes: &[&'static str], authority: &str, path: &str) -> Option<&'static str> {
        Router::new(routes.iter().map(|text| (route(text), *text))).find(authority, path).copied()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = ["/", "/v1", "/v1/users"];
        assert_eq!(find(&routes, "a", "/v1/users/7"), Some("/v1/users"));
        assert_eq!(find(&routes, "a", "/v1/orders"), Some("/v1"));
        assert_eq!(find(&routes, "a", "/index.html"), Some("/"));
    }

    #[test]
    fn segments_are_whole() {
        assert_eq!(find(&["/v1"], "a", "/v10"), None);
        assert_eq!(find(&["/v1"], "a", "/v1"), Some("/v1"));
        assert_eq!(find(&["/v1"], "a", "/v1/"), Some("/v1"));
    }

    #[test]
    fn a_named_host_comes_first_in_any_case_and_with_any_port() {
        let routes = ["/long/path", "api.example.com/"];
        assert_eq!(find(&routes, "API.example.com:8080", "/long/path"), Some("api.example.com/"));
        assert_eq!(find(&routes, "example.com", "/long/path"), Some("/long/path"));
        assert_eq!(find(&["[::1]/"], "[::1]:80", "/"), Some("[::1]/"));
    }
}
