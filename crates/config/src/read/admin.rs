//! `[admin]` and `[admin.tls]`.

use super::http::{Known, certificates, read_listen, refuse_all_handed_over};
use crate::admin::{Admin, AdminTls, is_on_this_machine};
use crate::http::{CertificateFiles, Http, Listen};
use crate::reader::{Item, Reading, Table};
use crate::spelling::quoted;
use std::path::PathBuf;

/// A text of so many characters that is no path by its look is most likely the token itself.
const TOKEN_CHARACTERS_MIN: usize = 32;

/// Reads `[admin]`, whose places are none of those that are `known`. `http` has the certificates that it may share.
pub(super) fn admin(
    cx: &mut Reading<'_>,
    item: &Item<'_>,
    http: Option<&Http>,
    known: &mut Vec<Known>,
) -> Option<Admin> {
    let mut table = item.table(cx, "a table such as [admin]")?;
    let listen = required(cx, &mut table, "listen", "missing; add one, such as listen = \"127.0.0.1:9443\"");
    let token = required(
        cx,
        &mut table,
        "token",
        "missing: clients by TCP show a token, which is in a file; add token = \"admin.token\", and make the file \
         with `openssl rand -hex 32`",
    );
    let tls = table.take("tls");
    table.finish(cx);
    let has_tls = tls.is_some();
    let own = tls.and_then(|item| own_certificates(cx, &item)).map(AdminTls::Own);
    let of_http =
        || http.and_then(|http| http.tls.as_ref()).map(|tls| AdminTls::OfHttp(tls.certificates.clone()));
    let tls = if has_tls { own } else { of_http() };
    let token = token.and_then(|item| token_file(cx, &item));
    let item = listen?;
    let listen = read_listen(cx, &item, false, known);
    refuse_all_handed_over(cx, &item, &listen);
    if !has_tls && tls.is_none() {
        refuse_in_clear(cx, &item, &listen);
    }
    Some(Admin { listen, token: token?, tls })
}

fn required<'t>(
    cx: &mut Reading<'_>,
    table: &mut Table<'t>,
    key: &'static str,
    missing: &str,
) -> Option<Item<'t>> {
    let item = table.take(key);
    if item.is_none() && !table.misspells(key) {
        cx.report.add(&table.span, table.path(key), missing);
    }
    item
}

fn own_certificates(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<Vec<CertificateFiles>> {
    let mut table = item.table(cx, "a table such as [admin.tls]")?;
    let files = certificates(cx, &mut table);
    table.finish(cx);
    files
}

/// The token is never in the formation, whose text is kept with each release.
fn token_file(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<PathBuf> {
    let text = item.text(cx, "the path of the file with the token")?;
    if text.len() >= TOKEN_CHARACTERS_MIN && !text.contains(['/', '.']) {
        let message = format!(
            "found a text of {} characters that looks like a token itself, expected the path of the file that the token is in",
            text.chars().count()
        );
        item.problem(cx, message);
        return None;
    }
    Some(cx.absolute(&text))
}

/// A token that passes a network in clear is anybody's who listens there. Sockets that are handed over are looked at when
/// they are there.
fn refuse_in_clear(cx: &mut Reading<'_>, item: &Item<'_>, listen: &[Listen]) {
    let far = listen.iter().filter(|place| matches!(place, Listen::Tcp(_)) && !is_on_this_machine(place));
    for place in far {
        let found = quoted(&place.to_string());
        let message = format!(
            "found {found}, which other machines may reach, and no certificate: the token would pass the network in clear; \
             add [admin.tls] with `cert` and `key`, or listen on 127.0.0.1"
        );
        item.problem(cx, message);
    }
}
