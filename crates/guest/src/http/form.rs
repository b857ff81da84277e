/// The names and values of a query string, or of a body of the type `application/x-www-form-urlencoded`, in their
/// order and decoded.
///
/// Invalid input is taken as it is: a stray `%` stays, and bytes that aren't UTF-8 become `U+FFFD`.
///
/// ```
/// let order: Vec<_> = wasmhost_guest::http::form_pairs("item=green+tea&quantity=2").collect();
/// assert_eq!(order, [("item".into(), "green tea".into()), ("quantity".into(), "2".into())]);
/// ```
pub fn form_pairs(encoded: &str) -> impl Iterator<Item = (String, String)> {
    encoded.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn decode(encoded: &str) -> String {
    let mut rest = encoded.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => match after {
                [high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                    decoded.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_valid_is_taken_as_it_is() {
        let pairs: Vec<_> = form_pairs("a=100%&b=%zz&&c&d=%C3%A9=%ff").collect();
        let expected = [("a", "100%"), ("b", "%zz"), ("c", ""), ("d", "é=\u{fffd}")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_string(), value.to_string())));
    }
}
