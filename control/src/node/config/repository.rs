//! The table `[repository]`: where an authority keeps SAs.

use std::path::PathBuf;

use toml::Spanned;

use super::check::{Checker, Place};
use super::file::{self, Table, Text};
use super::{Role, secret};
use crate::cluster::repository::User;

/// Where an authority keeps SAs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryAt {
    /// The file of the key that they are sealed with.
    pub key: PathBuf,
    pub store: Store,
}

/// What keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file of the authority's own.
    Embedded(PathBuf),
    /// An etcd cluster.
    Etcd {
        endpoints: Vec<String>,
        prefix: String,
        tls: Option<EtcdTls>,
        user: Option<User>,
    },
}

/// How the members of an etcd cluster are known, and the authority to them: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// What their certificates go back to.
    pub ca: PathBuf,
    /// Certificate and key of the authority's own.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in their certificates, if it is not the host's.
    pub name: Option<String>,
}

impl Checker<'_> {
    /// An address with its port; and a warning where whoever is in between could put back what is old.
    fn etcd_endpoint(&mut self, endpoint: &Spanned<String>, authenticated: bool) {
        let (at, found) = (endpoint.span(), endpoint.get_ref());
        let bare = found.split("://").last().unwrap_or_default();
        let port = bare.trim_end_matches('/').rsplit_once(':');
        let port = port.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, _)) = port else {
            let said = format!(
                "repository.etcd: found `{found}`, expected a member with its port, such as \"http://10.0.0.5:2379\""
            );
            return self.error(&at, said);
        };
        if !authenticated && !["127.0.0.1", "localhost", "[::1]"].contains(&host) {
            let said = format!(
                "repository.etcd: {found} is spoken to without authentication: whoever can write there \
                 could have numbers used twice; keep it in a network of its own"
            );
            self.warn(&at, said);
        }
    }

    /// By what members and authority know each other.
    fn etcd_tls(
        &mut self,
        ca: Text,
        cert: Text,
        key: Text,
        name: Text,
        at: &Place,
    ) -> Option<EtcdTls> {
        let beside = |this: &mut Self, text: &Text| {
            let path = text.as_ref()?;
            Some(this.beside(path.get_ref()))
        };
        let identity = match (beside(self, &cert), beside(self, &key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                let said =
                    "[repository]: found one of `cert` and `cert_key`, expected both or none";
                self.error(at, said);
                None
            }
        };
        let ca = beside(self, &ca);
        if ca.is_none() && (identity.is_some() || name.is_some()) {
            let said = "[repository]: `ca` is missing: expected the file of the CA that the members' certificates are of";
            self.error(at, said);
        }
        Some(EtcdTls {
            ca: ca?,
            identity,
            name: name.map(Spanned::into_inner),
        })
    }

    fn etcd_user(&mut self, user: Text, file: Text, at: &Place) -> Option<User> {
        let (user, file) = match (user, file) {
            (Some(user), Some(file)) => (user, file),
            (None, None) => return None,
            _ => {
                let said =
                    "[repository]: found one of `user` and `password_file`, expected both or none";
                self.error(at, said);
                return None;
            }
        };
        match secret::read_line(&self.beside(file.get_ref()), "") {
            Ok(password) => Some(User {
                name: user.into_inner(),
                password,
            }),
            Err(why) => {
                self.error(&file.span(), format!("repository.password_file: {why}"));
                None
            }
        }
    }

    pub(super) fn repository(
        &mut self,
        table: Table<file::Repository>,
        role: Role,
        state: &std::path::Path,
    ) -> Option<RepositoryAt> {
        if role != Role::Authority {
            let why = "only an authority keeps SAs";
            self.unused(table.as_ref(), "[repository]", role, why);
            return None;
        }
        let what = "where SAs are kept, and the key that they are sealed with";
        let table = self.required(table, &super::check::TOP, "[repository]", what)?;
        let at = table.span();
        let table = table.into_inner();
        let what = "a file with 64 hexadecimal digits, such as \"repository.key\"";
        let key = self.required(table.key, &at, "repository.key", what);
        let key = key.map(|path| self.beside(path.get_ref()));
        let store = match table.etcd.is_empty() {
            true => {
                let why = "without `etcd` it is a file";
                for (key, value) in [
                    ("prefix", &table.prefix),
                    ("ca", &table.ca),
                    ("cert", &table.cert),
                    ("cert_key", &table.cert_key),
                    ("name", &table.name),
                    ("user", &table.user),
                    ("password_file", &table.password_file),
                ] {
                    if let Some(value) = value {
                        let said = format!("repository.{key} has no effect: {why}");
                        self.warn(&value.span(), said);
                    }
                }
                Store::Embedded(match &table.file {
                    Some(file) => self.beside(file.get_ref()),
                    None => state.join("repository"),
                })
            }
            false => {
                if let Some(file) = &table.file {
                    let said = "repository.file: found beside `etcd`, expected one of the two";
                    self.error(&file.span(), said);
                }
                let tls = self.etcd_tls(table.ca, table.cert, table.cert_key, table.name, &at);
                let user = self.etcd_user(table.user, table.password_file, &at);
                for endpoint in &table.etcd {
                    self.etcd_endpoint(endpoint, tls.is_some());
                    let plain = !endpoint.get_ref().starts_with("https://");
                    if tls.is_some() && plain {
                        let said = format!(
                            "repository.etcd: found `{}` beside `ca`, expected https://",
                            endpoint.get_ref()
                        );
                        self.error(&endpoint.span(), said);
                    }
                }
                let endpoints = table.etcd.into_iter().map(Spanned::into_inner);
                let prefix = table.prefix.map(Spanned::into_inner);
                Store::Etcd {
                    endpoints: endpoints.collect(),
                    prefix: prefix.unwrap_or_else(|| "/evergate".to_owned()),
                    tls,
                    user,
                }
            }
        };
        Some(RepositoryAt { key: key?, store })
    }
}
