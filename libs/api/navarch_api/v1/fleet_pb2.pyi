import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListNodesRequest(_message.Message):
    __slots__ = ("pool", "provider", "region", "status", "health", "labels", "all", "limit", "page_token")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    POOL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pool: str
    provider: str
    region: str
    status: str
    health: str
    labels: _containers.ScalarMap[str, str]
    all: bool
    limit: int
    page_token: str
    def __init__(self, pool: _Optional[str] = ..., provider: _Optional[str] = ..., region: _Optional[str] = ..., status: _Optional[str] = ..., health: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., all: _Optional[bool] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetNodeRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class ListInstancesRequest(_message.Message):
    __slots__ = ("pool", "provider", "limit", "page_token")
    POOL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pool: str
    provider: str
    limit: int
    page_token: str
    def __init__(self, pool: _Optional[str] = ..., provider: _Optional[str] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPoolsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPoolRequest(_message.Message):
    __slots__ = ("pool",)
    POOL_FIELD_NUMBER: _ClassVar[int]
    pool: str
    def __init__(self, pool: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("node", "pool", "since")
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    node: str
    pool: str
    since: str
    def __init__(self, node: _Optional[str] = ..., pool: _Optional[str] = ..., since: _Optional[str] = ...) -> None: ...

class GetPlanRequest(_message.Message):
    __slots__ = ("pool",)
    POOL_FIELD_NUMBER: _ClassVar[int]
    pool: str
    def __init__(self, pool: _Optional[str] = ...) -> None: ...

class MakeNodeWishRequest(_message.Message):
    __slots__ = ("node", "verb", "reason", "force", "request_id", "expires_in_s")
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    node: str
    verb: str
    reason: str
    force: bool
    request_id: str
    expires_in_s: float
    def __init__(self, node: _Optional[str] = ..., verb: _Optional[str] = ..., reason: _Optional[str] = ..., force: _Optional[bool] = ..., request_id: _Optional[str] = ..., expires_in_s: _Optional[float] = ...) -> None: ...

class MakePoolWishRequest(_message.Message):
    __slots__ = ("pool", "verb", "nodes", "for_s", "reason", "request_id")
    POOL_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    FOR_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    pool: str
    verb: str
    nodes: int
    for_s: float
    reason: str
    request_id: str
    def __init__(self, pool: _Optional[str] = ..., verb: _Optional[str] = ..., nodes: _Optional[int] = ..., for_s: _Optional[float] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetWishRequest(_message.Message):
    __slots__ = ("node", "pool", "request_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    node: str
    pool: str
    request_id: str
    def __init__(self, node: _Optional[str] = ..., pool: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class FreezeRequest(_message.Message):
    __slots__ = ("level", "pool", "for_s", "reason")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    FOR_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    level: str
    pool: str
    for_s: float
    reason: str
    def __init__(self, level: _Optional[str] = ..., pool: _Optional[str] = ..., for_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class UnfreezeRequest(_message.Message):
    __slots__ = ("pool", "reason")
    POOL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    pool: str
    reason: str
    def __init__(self, pool: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListChangesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MakeChangeWishRequest(_message.Message):
    __slots__ = ("change", "verb", "reason", "request_id", "expires_in_s")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    change: str
    verb: str
    reason: str
    request_id: str
    expires_in_s: float
    def __init__(self, change: _Optional[str] = ..., verb: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., expires_in_s: _Optional[float] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("target", "for_s", "reason")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    FOR_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    target: str
    for_s: float
    reason: str
    def __init__(self, target: _Optional[str] = ..., for_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("target", "reason")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    target: str
    reason: str
    def __init__(self, target: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListGuardsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("pool", "node", "type", "since", "after")
    POOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    pool: str
    node: str
    type: str
    since: str
    after: int
    def __init__(self, pool: _Optional[str] = ..., node: _Optional[str] = ..., type: _Optional[str] = ..., since: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reason(_message.Message):
    __slots__ = ("at", "code", "text", "actor")
    AT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    code: str
    text: str
    actor: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., code: _Optional[str] = ..., text: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class Cordon(_message.Message):
    __slots__ = ("holder", "reason", "at")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    holder: str
    reason: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, holder: _Optional[str] = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node", "pool", "status", "health", "phase", "phase_since", "cordons", "provider", "region", "zone", "instance_type", "instance_id", "provider_id", "hostname", "address", "gpus", "replaces", "replaced_by", "reason", "price_per_hour", "labels", "generation", "created_at", "active_at", "terminated_at", "last_heartbeat", "revision")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PHASE_SINCE_FIELD_NUMBER: _ClassVar[int]
    CORDONS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PRICE_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    node: str
    pool: str
    status: str
    health: str
    phase: str
    phase_since: _timestamp_pb2.Timestamp
    cordons: _containers.RepeatedCompositeFieldContainer[Cordon]
    provider: str
    region: str
    zone: str
    instance_type: str
    instance_id: str
    provider_id: str
    hostname: str
    address: str
    gpus: int
    replaces: str
    replaced_by: str
    reason: str
    price_per_hour: float
    labels: _containers.ScalarMap[str, str]
    generation: int
    created_at: _timestamp_pb2.Timestamp
    active_at: _timestamp_pb2.Timestamp
    terminated_at: _timestamp_pb2.Timestamp
    last_heartbeat: _timestamp_pb2.Timestamp
    revision: int
    def __init__(self, node: _Optional[str] = ..., pool: _Optional[str] = ..., status: _Optional[str] = ..., health: _Optional[str] = ..., phase: _Optional[str] = ..., phase_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cordons: _Optional[_Iterable[_Union[Cordon, _Mapping]]] = ..., provider: _Optional[str] = ..., region: _Optional[str] = ..., zone: _Optional[str] = ..., instance_type: _Optional[str] = ..., instance_id: _Optional[str] = ..., provider_id: _Optional[str] = ..., hostname: _Optional[str] = ..., address: _Optional[str] = ..., gpus: _Optional[int] = ..., replaces: _Optional[str] = ..., replaced_by: _Optional[str] = ..., reason: _Optional[str] = ..., price_per_hour: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., generation: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., active_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., terminated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_heartbeat: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class Launch(_message.Message):
    __slots__ = ("provider", "instance_type", "region", "zone", "token", "attempt", "intended_at", "called_at", "deadline", "error", "error_code")
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INTENDED_AT_FIELD_NUMBER: _ClassVar[int]
    CALLED_AT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    provider: str
    instance_type: str
    region: str
    zone: str
    token: str
    attempt: int
    intended_at: _timestamp_pb2.Timestamp
    called_at: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    error: str
    error_code: str
    def __init__(self, provider: _Optional[str] = ..., instance_type: _Optional[str] = ..., region: _Optional[str] = ..., zone: _Optional[str] = ..., token: _Optional[str] = ..., attempt: _Optional[int] = ..., intended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., called_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[str] = ..., error_code: _Optional[str] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("instance_id", "provider_id", "provider", "node", "pool", "status", "state", "state_at", "instance_type", "region", "zone", "address", "price_per_hour", "launched_at")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_AT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PRICE_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    LAUNCHED_AT_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    provider_id: str
    provider: str
    node: str
    pool: str
    status: str
    state: str
    state_at: _timestamp_pb2.Timestamp
    instance_type: str
    region: str
    zone: str
    address: str
    price_per_hour: float
    launched_at: _timestamp_pb2.Timestamp
    def __init__(self, instance_id: _Optional[str] = ..., provider_id: _Optional[str] = ..., provider: _Optional[str] = ..., node: _Optional[str] = ..., pool: _Optional[str] = ..., status: _Optional[str] = ..., state: _Optional[str] = ..., state_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., instance_type: _Optional[str] = ..., region: _Optional[str] = ..., zone: _Optional[str] = ..., address: _Optional[str] = ..., price_per_hour: _Optional[float] = ..., launched_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("index", "uuid", "serial", "pci", "name", "memory_total_bytes")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    PCI_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    index: int
    uuid: str
    serial: str
    pci: str
    name: str
    memory_total_bytes: int
    def __init__(self, index: _Optional[int] = ..., uuid: _Optional[str] = ..., serial: _Optional[str] = ..., pci: _Optional[str] = ..., name: _Optional[str] = ..., memory_total_bytes: _Optional[int] = ...) -> None: ...

class Registration(_message.Message):
    __slots__ = ("at", "boot_id", "hostname", "addresses", "kernel", "agent_version", "driver", "driver_state", "gpus")
    AT_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    DRIVER_STATE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    boot_id: str
    hostname: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    kernel: str
    agent_version: str
    driver: str
    driver_state: str
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., boot_id: _Optional[str] = ..., hostname: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., kernel: _Optional[str] = ..., agent_version: _Optional[str] = ..., driver: _Optional[str] = ..., driver_state: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("cause", "actor", "since", "deadline", "then_terminate", "drained_at", "skipped", "blocked_by")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    THEN_TERMINATE_FIELD_NUMBER: _ClassVar[int]
    DRAINED_AT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_BY_FIELD_NUMBER: _ClassVar[int]
    cause: str
    actor: str
    since: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    then_terminate: bool
    drained_at: _timestamp_pb2.Timestamp
    skipped: bool
    blocked_by: str
    def __init__(self, cause: _Optional[str] = ..., actor: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., then_terminate: _Optional[bool] = ..., drained_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., skipped: _Optional[bool] = ..., blocked_by: _Optional[str] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("at", "source", "code", "text")
    AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    source: str
    code: str
    text: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[str] = ..., code: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("entity", "status", "action", "rule", "code", "reason", "since", "evidence")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    entity: str
    status: str
    action: str
    rule: str
    code: str
    reason: str
    since: _timestamp_pb2.Timestamp
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    def __init__(self, entity: _Optional[str] = ..., status: _Optional[str] = ..., action: _Optional[str] = ..., rule: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ...) -> None: ...

class Episode(_message.Message):
    __slots__ = ("entity", "code", "first_at", "last_at", "lines", "count")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIRST_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    entity: str
    code: str
    first_at: _timestamp_pb2.Timestamp
    last_at: _timestamp_pb2.Timestamp
    lines: int
    count: int
    def __init__(self, entity: _Optional[str] = ..., code: _Optional[str] = ..., first_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lines: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class HealthDetail(_message.Message):
    __slots__ = ("status", "since", "action", "code", "reason", "rule", "silent_since", "failure_id", "failed_at", "verdicts", "episodes")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    SILENT_SINCE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_ID_FIELD_NUMBER: _ClassVar[int]
    FAILED_AT_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    status: str
    since: _timestamp_pb2.Timestamp
    action: str
    code: str
    reason: str
    rule: str
    silent_since: _timestamp_pb2.Timestamp
    failure_id: str
    failed_at: _timestamp_pb2.Timestamp
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    episodes: _containers.RepeatedCompositeFieldContainer[Episode]
    def __init__(self, status: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., action: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., rule: _Optional[str] = ..., silent_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., failure_id: _Optional[str] = ..., failed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., episodes: _Optional[_Iterable[_Union[Episode, _Mapping]]] = ...) -> None: ...

class GpuReading(_message.Message):
    __slots__ = ("index", "utilization_ratio", "memory_used_bytes", "temperature_c", "power_w", "process_count")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_RATIO_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    PROCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    index: int
    utilization_ratio: float
    memory_used_bytes: int
    temperature_c: float
    power_w: float
    process_count: int
    def __init__(self, index: _Optional[int] = ..., utilization_ratio: _Optional[float] = ..., memory_used_bytes: _Optional[int] = ..., temperature_c: _Optional[float] = ..., power_w: _Optional[float] = ..., process_count: _Optional[int] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("at", "due_at", "driver_state", "idle", "cpu_ratio", "memory_ratio", "gpus")
    AT_FIELD_NUMBER: _ClassVar[int]
    DUE_AT_FIELD_NUMBER: _ClassVar[int]
    DRIVER_STATE_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    CPU_RATIO_FIELD_NUMBER: _ClassVar[int]
    MEMORY_RATIO_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    due_at: _timestamp_pb2.Timestamp
    driver_state: str
    idle: bool
    cpu_ratio: float
    memory_ratio: float
    gpus: _containers.RepeatedCompositeFieldContainer[GpuReading]
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., due_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., driver_state: _Optional[str] = ..., idle: _Optional[bool] = ..., cpu_ratio: _Optional[float] = ..., memory_ratio: _Optional[float] = ..., gpus: _Optional[_Iterable[_Union[GpuReading, _Mapping]]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("at", "outcome", "code", "reason")
    AT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    outcome: str
    code: str
    reason: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., outcome: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class OpenWish(_message.Message):
    __slots__ = ("request_id", "verb", "actor", "reason", "at", "expires_at", "force", "nodes", "hold_until")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    HOLD_UNTIL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    verb: str
    actor: str
    reason: str
    at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    force: bool
    nodes: int
    hold_until: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., verb: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., force: _Optional[bool] = ..., nodes: _Optional[int] = ..., hold_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NodeDetail(_message.Message):
    __slots__ = ("node", "pool", "status", "health", "phase", "phase_since", "cordons", "provider", "region", "zone", "instance_type", "instance_id", "provider_id", "hostname", "address", "gpus", "replaces", "replaced_by", "reason", "price_per_hour", "labels", "generation", "created_at", "active_at", "terminated_at", "last_heartbeat", "revision", "instance", "launch", "registration", "drain", "health_detail", "sample", "reasons", "blocked", "wishes", "answers", "powered_off", "failure_id", "trace", "config_generation", "as_of")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnswersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Answer
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PHASE_SINCE_FIELD_NUMBER: _ClassVar[int]
    CORDONS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PRICE_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    HEALTH_DETAIL_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    WISHES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    POWERED_OFF_FIELD_NUMBER: _ClassVar[int]
    FAILURE_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_GENERATION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    node: str
    pool: str
    status: str
    health: str
    phase: str
    phase_since: _timestamp_pb2.Timestamp
    cordons: _containers.RepeatedCompositeFieldContainer[Cordon]
    provider: str
    region: str
    zone: str
    instance_type: str
    instance_id: str
    provider_id: str
    hostname: str
    address: str
    gpus: int
    replaces: str
    replaced_by: str
    reason: str
    price_per_hour: float
    labels: _containers.ScalarMap[str, str]
    generation: int
    created_at: _timestamp_pb2.Timestamp
    active_at: _timestamp_pb2.Timestamp
    terminated_at: _timestamp_pb2.Timestamp
    last_heartbeat: _timestamp_pb2.Timestamp
    revision: int
    instance: Instance
    launch: Launch
    registration: Registration
    drain: Drain
    health_detail: HealthDetail
    sample: Sample
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    blocked: Reason
    wishes: _containers.RepeatedCompositeFieldContainer[OpenWish]
    answers: _containers.MessageMap[str, Answer]
    powered_off: bool
    failure_id: str
    trace: str
    config_generation: int
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, node: _Optional[str] = ..., pool: _Optional[str] = ..., status: _Optional[str] = ..., health: _Optional[str] = ..., phase: _Optional[str] = ..., phase_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cordons: _Optional[_Iterable[_Union[Cordon, _Mapping]]] = ..., provider: _Optional[str] = ..., region: _Optional[str] = ..., zone: _Optional[str] = ..., instance_type: _Optional[str] = ..., instance_id: _Optional[str] = ..., provider_id: _Optional[str] = ..., hostname: _Optional[str] = ..., address: _Optional[str] = ..., gpus: _Optional[int] = ..., replaces: _Optional[str] = ..., replaced_by: _Optional[str] = ..., reason: _Optional[str] = ..., price_per_hour: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., generation: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., active_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., terminated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_heartbeat: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., instance: _Optional[_Union[Instance, _Mapping]] = ..., launch: _Optional[_Union[Launch, _Mapping]] = ..., registration: _Optional[_Union[Registration, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., health_detail: _Optional[_Union[HealthDetail, _Mapping]] = ..., sample: _Optional[_Union[Sample, _Mapping]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., blocked: _Optional[_Union[Reason, _Mapping]] = ..., wishes: _Optional[_Iterable[_Union[OpenWish, _Mapping]]] = ..., answers: _Optional[_Mapping[str, Answer]] = ..., powered_off: _Optional[bool] = ..., failure_id: _Optional[str] = ..., trace: _Optional[str] = ..., config_generation: _Optional[int] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NodeList(_message.Message):
    __slots__ = ("items", "next_page_token", "as_of")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Node]
    next_page_token: str
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, items: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class InstanceList(_message.Message):
    __slots__ = ("items", "next_page_token", "as_of")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Instance]
    next_page_token: str
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, items: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("pool", "desired", "active", "provisioning", "cordoned", "unhealthy", "draining", "min_nodes", "max_nodes", "paused", "retiring", "frozen", "provider", "instance_type", "autoscaling", "reason", "dollars_per_hour", "held")
    POOL_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    PROVISIONING_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    MIN_NODES_FIELD_NUMBER: _ClassVar[int]
    MAX_NODES_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RETIRING_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DOLLARS_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    pool: str
    desired: int
    active: int
    provisioning: int
    cordoned: int
    unhealthy: int
    draining: int
    min_nodes: int
    max_nodes: int
    paused: bool
    retiring: bool
    frozen: bool
    provider: str
    instance_type: str
    autoscaling: str
    reason: str
    dollars_per_hour: float
    held: bool
    def __init__(self, pool: _Optional[str] = ..., desired: _Optional[int] = ..., active: _Optional[int] = ..., provisioning: _Optional[int] = ..., cordoned: _Optional[int] = ..., unhealthy: _Optional[int] = ..., draining: _Optional[int] = ..., min_nodes: _Optional[int] = ..., max_nodes: _Optional[int] = ..., paused: _Optional[bool] = ..., retiring: _Optional[bool] = ..., frozen: _Optional[bool] = ..., provider: _Optional[str] = ..., instance_type: _Optional[str] = ..., autoscaling: _Optional[str] = ..., reason: _Optional[str] = ..., dollars_per_hour: _Optional[float] = ..., held: _Optional[bool] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("actor", "reason", "at")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    actor: str
    reason: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, actor: _Optional[str] = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Opinion(_message.Message):
    __slots__ = ("strategy", "target", "code", "reason", "fresh")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    target: int
    code: str
    reason: str
    fresh: bool
    def __init__(self, strategy: _Optional[str] = ..., target: _Optional[int] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., fresh: _Optional[bool] = ...) -> None: ...

class Supply(_message.Message):
    __slots__ = ("launch_failures", "retry_at", "exhausted_since", "swept_at", "blocked", "failed_starts", "breaker", "limits")
    LAUNCH_FAILURES_FIELD_NUMBER: _ClassVar[int]
    RETRY_AT_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_SINCE_FIELD_NUMBER: _ClassVar[int]
    SWEPT_AT_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    FAILED_STARTS_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    launch_failures: int
    retry_at: _timestamp_pb2.Timestamp
    exhausted_since: _timestamp_pb2.Timestamp
    swept_at: _timestamp_pb2.Timestamp
    blocked: Reason
    failed_starts: int
    breaker: Breaker
    limits: _containers.RepeatedCompositeFieldContainer[LimitReached]
    def __init__(self, launch_failures: _Optional[int] = ..., retry_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., exhausted_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., swept_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., blocked: _Optional[_Union[Reason, _Mapping]] = ..., failed_starts: _Optional[int] = ..., breaker: _Optional[_Union[Breaker, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[LimitReached, _Mapping]]] = ...) -> None: ...

class LimitReached(_message.Message):
    __slots__ = ("key", "since")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    key: str
    since: _timestamp_pb2.Timestamp
    def __init__(self, key: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Breaker(_message.Message):
    __slots__ = ("since", "code", "reason", "canary", "tries", "retry_at")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    RETRY_AT_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    code: str
    reason: str
    canary: str
    tries: int
    retry_at: _timestamp_pb2.Timestamp
    def __init__(self, since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., canary: _Optional[str] = ..., tries: _Optional[int] = ..., retry_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("id", "pool", "node", "act", "text", "since", "automation")
    ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    AUTOMATION_FIELD_NUMBER: _ClassVar[int]
    id: str
    pool: str
    node: str
    act: str
    text: str
    since: _timestamp_pb2.Timestamp
    automation: str
    def __init__(self, id: _Optional[str] = ..., pool: _Optional[str] = ..., node: _Optional[str] = ..., act: _Optional[str] = ..., text: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., automation: _Optional[str] = ...) -> None: ...

class ChangeList(_message.Message):
    __slots__ = ("items", "as_of")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Change]
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, items: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PoolStatus(_message.Message):
    __slots__ = ("pool", "desired", "active", "provisioning", "cordoned", "unhealthy", "draining", "min_nodes", "max_nodes", "paused", "retiring", "frozen", "provider", "instance_type", "autoscaling", "reason", "dollars_per_hour", "held", "actor", "code", "scaled_at", "hold_until", "pause", "opinions", "limited", "supply", "guards", "reasons", "wishes", "answers", "as_of", "automation", "changes")
    class AnswersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Answer
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...
    POOL_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    PROVISIONING_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    MIN_NODES_FIELD_NUMBER: _ClassVar[int]
    MAX_NODES_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RETIRING_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DOLLARS_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    SCALED_AT_FIELD_NUMBER: _ClassVar[int]
    HOLD_UNTIL_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    OPINIONS_FIELD_NUMBER: _ClassVar[int]
    LIMITED_FIELD_NUMBER: _ClassVar[int]
    SUPPLY_FIELD_NUMBER: _ClassVar[int]
    GUARDS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    WISHES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    AUTOMATION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    pool: str
    desired: int
    active: int
    provisioning: int
    cordoned: int
    unhealthy: int
    draining: int
    min_nodes: int
    max_nodes: int
    paused: bool
    retiring: bool
    frozen: bool
    provider: str
    instance_type: str
    autoscaling: str
    reason: str
    dollars_per_hour: float
    held: bool
    actor: str
    code: str
    scaled_at: _timestamp_pb2.Timestamp
    hold_until: _timestamp_pb2.Timestamp
    pause: Pause
    opinions: _containers.RepeatedCompositeFieldContainer[Opinion]
    limited: Reason
    supply: Supply
    guards: _containers.RepeatedCompositeFieldContainer[Guard]
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    wishes: _containers.RepeatedCompositeFieldContainer[OpenWish]
    answers: _containers.MessageMap[str, Answer]
    as_of: _timestamp_pb2.Timestamp
    automation: str
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, pool: _Optional[str] = ..., desired: _Optional[int] = ..., active: _Optional[int] = ..., provisioning: _Optional[int] = ..., cordoned: _Optional[int] = ..., unhealthy: _Optional[int] = ..., draining: _Optional[int] = ..., min_nodes: _Optional[int] = ..., max_nodes: _Optional[int] = ..., paused: _Optional[bool] = ..., retiring: _Optional[bool] = ..., frozen: _Optional[bool] = ..., provider: _Optional[str] = ..., instance_type: _Optional[str] = ..., autoscaling: _Optional[str] = ..., reason: _Optional[str] = ..., dollars_per_hour: _Optional[float] = ..., held: _Optional[bool] = ..., actor: _Optional[str] = ..., code: _Optional[str] = ..., scaled_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hold_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ..., opinions: _Optional[_Iterable[_Union[Opinion, _Mapping]]] = ..., limited: _Optional[_Union[Reason, _Mapping]] = ..., supply: _Optional[_Union[Supply, _Mapping]] = ..., guards: _Optional[_Iterable[_Union[Guard, _Mapping]]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., wishes: _Optional[_Iterable[_Union[OpenWish, _Mapping]]] = ..., answers: _Optional[_Mapping[str, Answer]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., automation: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

class PoolList(_message.Message):
    __slots__ = ("items", "as_of")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Pool]
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, items: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WishAccepted(_message.Message):
    __slots__ = ("request_id", "event_id", "revision", "verb", "node", "pool", "repeated")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    event_id: str
    revision: int
    verb: str
    node: str
    pool: str
    repeated: bool
    def __init__(self, request_id: _Optional[str] = ..., event_id: _Optional[str] = ..., revision: _Optional[int] = ..., verb: _Optional[str] = ..., node: _Optional[str] = ..., pool: _Optional[str] = ..., repeated: _Optional[bool] = ...) -> None: ...

class WishState(_message.Message):
    __slots__ = ("request_id", "state", "wish", "answer")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WISH_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    state: str
    wish: OpenWish
    answer: Answer
    def __init__(self, request_id: _Optional[str] = ..., state: _Optional[str] = ..., wish: _Optional[_Union[OpenWish, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class ExplainItem(_message.Message):
    __slots__ = ("at", "actor", "code", "text", "event", "id", "node")
    AT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    actor: str
    code: str
    text: str
    event: str
    id: str
    node: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., code: _Optional[str] = ..., text: _Optional[str] = ..., event: _Optional[str] = ..., id: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("node", "pool", "status", "reason", "items", "blocked", "complete", "as_of")
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    node: str
    pool: str
    status: str
    reason: str
    items: _containers.RepeatedCompositeFieldContainer[ExplainItem]
    blocked: Reason
    complete: bool
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, node: _Optional[str] = ..., pool: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ExplainItem, _Mapping]]] = ..., blocked: _Optional[_Union[Reason, _Mapping]] = ..., complete: _Optional[bool] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PlanStep(_message.Message):
    __slots__ = ("pool", "node", "act", "reason", "cost_per_hour_delta")
    POOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COST_PER_HOUR_DELTA_FIELD_NUMBER: _ClassVar[int]
    pool: str
    node: str
    act: str
    reason: str
    cost_per_hour_delta: float
    def __init__(self, pool: _Optional[str] = ..., node: _Optional[str] = ..., act: _Optional[str] = ..., reason: _Optional[str] = ..., cost_per_hour_delta: _Optional[float] = ...) -> None: ...

class PlanBlocked(_message.Message):
    __slots__ = ("pool", "node", "code", "reason", "change")
    POOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    pool: str
    node: str
    code: str
    reason: str
    change: str
    def __init__(self, pool: _Optional[str] = ..., node: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., change: _Optional[str] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("steps", "changes", "as_of", "blocked")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[PlanStep]
    changes: bool
    as_of: _timestamp_pb2.Timestamp
    blocked: _containers.RepeatedCompositeFieldContainer[PlanBlocked]
    def __init__(self, steps: _Optional[_Iterable[_Union[PlanStep, _Mapping]]] = ..., changes: _Optional[bool] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., blocked: _Optional[_Iterable[_Union[PlanBlocked, _Mapping]]] = ...) -> None: ...

class Guard(_message.Message):
    __slots__ = ("name", "active", "level", "pool", "number", "actor", "reason", "at", "until", "kind", "node")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    active: bool
    level: str
    pool: str
    number: int
    actor: str
    reason: str
    at: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    kind: str
    node: str
    def __init__(self, name: _Optional[str] = ..., active: _Optional[bool] = ..., level: _Optional[str] = ..., pool: _Optional[str] = ..., number: _Optional[int] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class GuardAccepted(_message.Message):
    __slots__ = ("name", "active", "level", "pool", "number", "actor", "reason", "at", "until", "kind", "node", "event_id", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    active: bool
    level: str
    pool: str
    number: int
    actor: str
    reason: str
    at: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    kind: str
    node: str
    event_id: str
    revision: int
    def __init__(self, name: _Optional[str] = ..., active: _Optional[bool] = ..., level: _Optional[str] = ..., pool: _Optional[str] = ..., number: _Optional[int] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., node: _Optional[str] = ..., event_id: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GuardList(_message.Message):
    __slots__ = ("items", "as_of")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Guard]
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, items: _Optional[_Iterable[_Union[Guard, _Mapping]]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "id", "at", "cluster", "pool", "node", "reason", "code", "actor", "rev", "trace_id", "sequence", "json")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    type: str
    id: str
    at: _timestamp_pb2.Timestamp
    cluster: str
    pool: str
    node: str
    reason: str
    code: str
    actor: str
    rev: int
    trace_id: str
    sequence: int
    json: str
    def __init__(self, type: _Optional[str] = ..., id: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cluster: _Optional[str] = ..., pool: _Optional[str] = ..., node: _Optional[str] = ..., reason: _Optional[str] = ..., code: _Optional[str] = ..., actor: _Optional[str] = ..., rev: _Optional[int] = ..., trace_id: _Optional[str] = ..., sequence: _Optional[int] = ..., json: _Optional[str] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("generation", "sha256", "text", "author", "source", "at")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    sha256: str
    text: str
    author: str
    source: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, generation: _Optional[int] = ..., sha256: _Optional[str] = ..., text: _Optional[str] = ..., author: _Optional[str] = ..., source: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("version", "cluster", "installation", "api")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    INSTALLATION_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    version: str
    cluster: str
    installation: str
    api: str
    def __init__(self, version: _Optional[str] = ..., cluster: _Optional[str] = ..., installation: _Optional[str] = ..., api: _Optional[str] = ...) -> None: ...
