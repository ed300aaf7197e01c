"""One tree of errors; each class has a stable code, and each message says what, where and what to do next.

CoflowsError
|-- ConfigurationError            a setting, URL or file of the user's own is wrong
|-- NameInvalidError              a user id, endpoint or other name is outside its grammar
|-- IdentityError                 a user's keys
|   |-- UserNotFoundError
|   |-- UserExistsError
|   `-- PassphraseError           the keys are under a passphrase, which is missing or another one
|-- EnvelopeError                 sealed bytes that do not open, or not for us
|   |-- CertificateError          malformed, or not signed by its user
|   `-- KeyRetiredError           sealed with or for a key that its user has given up
|-- SerializationError            data that cannot be encoded, or bytes that cannot be decoded
|-- MessageTooLargeError
|-- BrokerError
|   |-- BrokerUnavailableError    nothing answers at the URL
|   |-- BrokerAuthError           credentials refused
|   |-- QueueMismatchError        the queue exists with other arguments
|   |-- UnroutableError           no such queue; nothing was kept
|   |-- AccountExistsError        the user has an account on the broker already
|   `-- AccountNotFoundError
|-- StoreError
|   |-- StoreUnavailableError
|   |-- StoreLockedError
|   |-- StoreReadOnlyError
|   `-- ConflictError             a commit's condition did not hold; nothing was written
|-- FlowError
|   |-- FlowClassError            a class that does not import, or is no Flow
|   |-- FlowConfigError           a config that does not parse or validate
|   |-- InputInvalidError         a message that the flow does not take (also a ValueError)
|   |-- OutputInvalidError        a reply that is not what the flow promises (also a ValueError)
|   |-- EndpointTakenError        the endpoint serves another class, or the same one otherwise
|   |-- SecretExposedError        a flow was about to keep or send a secret of its worker's
|   `-- FlowTimeoutError          a flow or task did not end in time (also a TimeoutError)
|-- ExecutionError                a task in a pool
|   |-- PoolClosedError
|   |-- TaskError                 it raised something that cannot be sent as it is
|   `-- WorkerDiedError           its worker process died over it
|       `-- WorkerMemoryError     of want of memory (also a MemoryError)
|-- WorkflowError
|   |-- WorkflowInvalidError      steps that make no graph
|   |-- WorkflowFailedError       a step failed (also a RuntimeError)
|   `-- WorkflowCancelledError    somebody cancelled the run (also a RuntimeError)
|-- EndpointNotFoundError         this user serves nothing under that name
|-- UnknownUserError              no user with this id has a door on this broker
|   `-- OtherBrokerError          he says that he is on another one
|-- InstanceNotFoundError         no such instance, or it was deleted
|-- FlowInstanceError             a tree of instances could not be fetched; names the chain
|   `-- FlowCycleError            the tree contains itself
|-- AccessDeniedError
|   `-- GrantError                forged, changed, widened, or for somebody or something else
|       |-- GrantExpiredError
|       |-- GrantRevokedError
|       `-- GrantSpentError       its budget is used up
|-- CallChainError                a chain of calls that its sender cannot vouch for
|   |-- CallCycleError            the call went through this instance already
|   |-- CallDepthError            ... or through too many
|   `-- CallBudgetError           ... or has caused as many others as it may
|-- RemoteFlowError               the flow that was called raised
|-- PoisonMessageError            workers died over the message; it was given up
|-- DeadLetterNotFoundError
|-- RegistryError                 a node, registry or provider could not do what was asked
|   |-- RegistryUnavailableError  nothing answers at its URL
|   |-- RegistryRefusedError      it does not do that for this user, or not as asked
|   |-- AddressRefusedError       a URL that may not be dialled
|   |-- FlowNotListedError        no registry that was asked lists a flow of that name
|   |-- FlowAmbiguousError        several users offer a flow of that name
|   |-- FlowOfflineError          who offers the flow is not there
|   `-- ProofInvalidError         a registry lists what its owner has not signed
|-- QueryInvalidError             a query, or an order, that does not parse
|-- OutOfOrderError               later messages of the same sender were worked off already
|-- CallTimeoutError              no reply by the deadline (also a TimeoutError)
|   `-- CallExpiredError          the call came after the deadline of its chain
`-- CallCancelledError            the caller cancelled the future
"""

from __future__ import annotations

from coflows.errors.access import (
    CallBudgetError,
    CallChainError,
    CallCycleError,
    CallDepthError,
    CallExpiredError,
    GrantError,
    GrantExpiredError,
    GrantRevokedError,
    GrantSpentError,
)
from coflows.errors.base import (
    CoflowsError,
    ConfigurationError,
    IdentityError,
    NameInvalidError,
    PassphraseError,
    UserExistsError,
    UserNotFoundError,
)
from coflows.errors.calls import (
    AccessDeniedError,
    CallCancelledError,
    CallTimeoutError,
    DeadLetterNotFoundError,
    EndpointNotFoundError,
    FlowCycleError,
    FlowInstanceError,
    InstanceNotFoundError,
    OtherBrokerError,
    OutOfOrderError,
    PoisonMessageError,
    RemoteFlowError,
    UnknownUserError,
)
from coflows.errors.carriers import (
    AccountExistsError,
    AccountNotFoundError,
    BrokerAuthError,
    BrokerError,
    BrokerUnavailableError,
    CertificateError,
    ConflictError,
    EnvelopeError,
    KeyRetiredError,
    MessageTooLargeError,
    QueueMismatchError,
    SerializationError,
    StoreError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreUnavailableError,
    UnroutableError,
)
from coflows.errors.flows import (
    EndpointTakenError,
    ExecutionError,
    FlowClassError,
    FlowConfigError,
    FlowError,
    FlowTimeoutError,
    InputInvalidError,
    OutputInvalidError,
    PoolClosedError,
    SecretExposedError,
    TaskError,
    WorkerDiedError,
    WorkerMemoryError,
    WorkflowCancelledError,
    WorkflowError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from coflows.errors.registries import (
    AddressRefusedError,
    FlowAmbiguousError,
    FlowNotListedError,
    FlowOfflineError,
    ProofInvalidError,
    QueryInvalidError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
)

__all__ = [
    "AccessDeniedError",
    "AccountExistsError",
    "AccountNotFoundError",
    "AddressRefusedError",
    "BrokerAuthError",
    "BrokerError",
    "BrokerUnavailableError",
    "CallBudgetError",
    "CallCancelledError",
    "CallChainError",
    "CallCycleError",
    "CallDepthError",
    "CallExpiredError",
    "CallTimeoutError",
    "CertificateError",
    "CoflowsError",
    "ConfigurationError",
    "ConflictError",
    "DeadLetterNotFoundError",
    "EndpointNotFoundError",
    "EndpointTakenError",
    "EnvelopeError",
    "ExecutionError",
    "FlowAmbiguousError",
    "FlowClassError",
    "FlowConfigError",
    "FlowCycleError",
    "FlowError",
    "FlowInstanceError",
    "FlowNotListedError",
    "FlowOfflineError",
    "FlowTimeoutError",
    "GrantError",
    "GrantExpiredError",
    "GrantRevokedError",
    "GrantSpentError",
    "IdentityError",
    "InputInvalidError",
    "InstanceNotFoundError",
    "KeyRetiredError",
    "MessageTooLargeError",
    "NameInvalidError",
    "OtherBrokerError",
    "OutOfOrderError",
    "OutputInvalidError",
    "PassphraseError",
    "PoisonMessageError",
    "PoolClosedError",
    "ProofInvalidError",
    "QueryInvalidError",
    "QueueMismatchError",
    "RegistryError",
    "RegistryRefusedError",
    "RegistryUnavailableError",
    "RemoteFlowError",
    "SecretExposedError",
    "SerializationError",
    "StoreError",
    "StoreLockedError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "TaskError",
    "UnknownUserError",
    "UnroutableError",
    "UserExistsError",
    "UserNotFoundError",
    "WorkerDiedError",
    "WorkerMemoryError",
    "WorkflowCancelledError",
    "WorkflowError",
    "WorkflowFailedError",
    "WorkflowInvalidError",
]
