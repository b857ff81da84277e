//! The router picks a request's type by host, then by path prefix of whole segments, the longest first. A route that
//! names the host comes before those that don't. Hosts and paths are compared in their normal forms.

use std::collections::HashMap;

use wasmhost_config::{Route, normal_path};

use super::authority::Authority;

/// Routes to `T`.
pub(crate) struct Router<T> {
    /// By the host's normal form.
    by_host: HashMap<String, Vec<(String, T)>>,
    any_host: Vec<(String, T)>,
    /// Whether any route has a path but `/`.
    by_path: bool,
}

impl<T> Router<T> {
    pub(crate) fn new(routes: impl IntoIterator<Item = (Route, T)>) -> Self {
        let mut router = Router { by_host: HashMap::new(), any_host: Vec::new(), by_path: false };
        for (route, to) in routes {
            router.by_path |= route.path != "/";
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
        let path = if self.by_path { normal_path(path) } else { path.into() };
        let host = match self.by_host.is_empty() {
            true => None,
            false => Authority::parse(authority.as_bytes()).map(|authority| authority.normal_host()),
        };
        let named = host.and_then(|host| self.by_host.get(&*host));
        named.and_then(|routes| first(routes, &path)).or_else(|| first(&self.any_host, &path))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn find(routes: &[&'static str], authority: &str, path: &str) -> Option<&'static str> {
        let routes = routes.iter().map(|text| (text.parse::<Route>().unwrap(), *text));
        Router::new(routes).find(authority, path).copied()
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
        for authority in ["[::1]:80", "[::1]", "[0:0::1]:", "[0000::0001]"] {
            assert_eq!(find(&["[::1]/"], authority, "/"), Some("[::1]/"), "{authority}");
        }
    }

    #[test]
    fn a_dot_at_the_end_of_a_host_makes_no_difference() {
        for route in ["admin.example.com/", "admin.example.com./"] {
            for authority in
                ["admin.example.com.", "Admin.Example.com.:80", "admin.example.com", "%61dmin.example.com"]
            {
                assert_eq!(find(&["/", route], authority, "/"), Some(route), "{authority}");
            }
            assert_eq!(find(&["/", route], "admin.example.com..", "/"), Some("/"));
        }
    }

    #[test]
    fn a_path_is_compared_in_one_form() {
        for route in ["/café", "/caf%C3%A9", "/caf%c3%a9"] {
            for path in ["/caf%C3%A9", "/caf%c3%A9/x", "/café", "/c%61f%C3%A9"] {
                assert_eq!(find(&[route], "a", path), Some(route), "{path}");
            }
            assert_eq!(find(&[route], "a", "/caf%C3%A8"), None);
        }
        // A slash that is encoded parts no segments.
        assert_eq!(find(&["/a"], "a", "/a%2Fb"), None);
    }
}
