//! Label selectors.

use std::collections::BTreeMap;

/// Operator of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Operator.
    pub operator: Operator,
    /// Values, for `In` and `NotIn`.
    pub values: Vec<String>,
}

/// Why a selector cannot be understood. The schema admits none of these, but an object may be older than the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The operator is none that Kubernetes has.
    #[error(
        "serviceSelector: key {key:?} has the unknown operator {operator:?}; known are In, NotIn, Exists and DoesNotExist"
    )]
    Operator {
        /// Label key.
        key: String,
        /// What stands for the operator.
        operator: String,
    },
    /// Kubernetes wants values with In and NotIn, and none with the others.
    #[error("serviceSelector: key {key:?} with operator {operator:?} must have {}", if *.wanted { "values" } else { "no values" })]
    Values {
        /// Label key.
        key: String,
        /// Operator.
        operator: Operator,
        /// Whether values are wanted.
        wanted: bool,
    },
}

impl Operator {
    fn from_api(text: &str) -> Option<Self> {
        match text {
            "In" => Some(Self::In),
            "NotIn" => Some(Self::NotIn),
            "Exists" => Some(Self::Exists),
            "DoesNotExist" => Some(Self::DoesNotExist),
            _ => None,
        }
    }
}

impl Requirement {
    /// From the API's spelling.
    ///
    /// # Errors
    /// If the operator is unknown, or does not go with the values.
    pub fn from_api(key: &str, operator: &str, values: Vec<String>) -> Result<Self, SelectorError> {
        let Some(known) = Operator::from_api(operator) else {
            return Err(SelectorError::Operator { key: key.to_owned(), operator: operator.to_owned() });
        };
        let wanted = matches!(known, Operator::In | Operator::NotIn);
        if values.is_empty() == wanted {
            return Err(SelectorError::Values { key: key.to_owned(), operator: known, wanted });
        }
        Ok(Self { key: key.to_owned(), operator: known, values })
    }
}

/// All requirements must hold; none means everything is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Whether these labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let listed = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => listed,
                Operator::NotIn => !listed,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}
