"""`MixpanelComponent`: `build_defs` as a `defs.yaml`, for projects that are made of Dagster's components.

    type: mixpanel_assets.MixpanelComponent
    attributes:
      name: eu
      username: "{{ env.EU_USERNAME }}"
      secret: "{{ env.EU_SECRET }}"
      project_id: "{{ env.EU_PROJECT_ID }}"

A template that is a variable and nothing else is not filled in when the file is loaded: its name is kept, and what it
holds is read when a run needs it. So no secret is in the definitions.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeAlias

import dagster as dg
from docstring_parser import parse
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    create_model,
    model_validator,
)

from mixpanel_assets.definitions import FRESHNESS, build_defs
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.schedules import HOURLY, LOOKBACK_DAYS
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets.streams.stream import Stream

_SAID = {each.arg_name: " ".join((each.description or "").split()) for each in parse(build_defs.__doc__ or "").params}
_VARIABLE = re.compile(r"\{\{\s*env(?:\.(\w+)|\(\s*['\"](\w+)['\"]\s*\))\s*\}\}")


def _account(context: dg.ResolutionContext, written: str | None) -> dg.EnvVar | None:
    """The variable that holds a part of the account. What is written otherwise may be a secret, and is not quoted."""
    if not written:
        return None
    template = _VARIABLE.fullmatch(str(written).strip())
    if not template:
        raise ConfigurationError("username and secret: write the variable that holds it, as {{ env.MP_SECRET }}")
    return dg.EnvVar(template[1] or template[2])


def _setting(context: dg.ResolutionContext, written: Any) -> Any:
    template = _VARIABLE.fullmatch(written.strip()) if isinstance(written, str) else None
    return dg.EnvVar(template[1] or template[2]) if template else context.resolve_value(written)


def _streams(context: dg.ResolutionContext, written: Sequence[str]) -> Sequence[Stream]:
    names = context.resolve_value(written, as_type=list)
    known = {stream.name: stream for stream in STREAMS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"streams: {unknown[0]!r} is none of {', '.join(known)}")
    return [known[name] for name in names]


def _said(name: str, written: type | UnionType | None = None) -> dg.Resolver:
    """What is written as it is used; `written`: where it is not, its type in YAML."""
    resolver: dg.Resolver = dg.Resolver.default(model_field_type=written, description=_SAID[name])
    return resolver


def _in_python(name: str) -> dg.Resolver:
    """What YAML cannot say: a template variable of the project's."""
    return _said(name, str)


def _account_of(name: str) -> dg.Resolver:
    return dg.Resolver(_account, model_field_type=str, description=_SAID[name], inject_before_resolve=False)


def _setting_of(name: str, written: type | UnionType = str) -> dg.Resolver:
    return dg.Resolver(_setting, model_field_type=written, description=_SAID[name], inject_before_resolve=False)


def _quote_nothing(cls: Any, written: Any, read: ModelWrapValidatorHandler[BaseModel]) -> BaseModel:
    """What is refused may be a secret at the wrong place."""
    try:
        return read(written)
    except ValidationError as error:
        said: Any = [{**each, "input": "..."} for each in error.errors()]
        raise ValidationError.from_exception_data(error.title, said) from None


_Setting: TypeAlias = str | dg.EnvVar
_Number: TypeAlias = int | str | dg.EnvVar


class MixpanelComponent(dg.Component, dg.Resolvable, dg.Model):
    """Copies a Mixpanel project into DuckDB: its profiles, events, cohorts and more as assets, with their jobs,
    schedules, sensors and checks. One for each Mixpanel project; all but one of them need a name.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, _said("name")] = ""
    key_prefix: Annotated[str, _said("key_prefix")] = ""
    # Pydantic's models have a `schema` of their own.
    schema_name: Annotated[str, _said("schema")] = Field("", alias="schema")
    username: Annotated[dg.EnvVar | None, _account_of("username")] = None
    secret: Annotated[dg.EnvVar | None, _account_of("secret")] = None
    project_id: Annotated[_Number, _setting_of("project_id", int | str)] = ""
    workspace_id: Annotated[_Number, _setting_of("workspace_id", int | str)] = ""
    region: Annotated[_Setting, _setting_of("region")] = ""
    query_url: Annotated[_Setting, _setting_of("query_url")] = ""
    export_url: Annotated[_Setting, _setting_of("export_url")] = ""
    app_url: Annotated[_Setting, _setting_of("app_url")] = ""
    timezone: Annotated[_Setting, _setting_of("timezone")] = ""
    events_start_date: Annotated[_Setting, _setting_of("events_start_date")] = ""
    event_times: Annotated[_Setting, _setting_of("event_times")] = ""
    groups: Annotated[Any, _setting_of("groups", dict[str, int | str] | str)] = None
    include_properties: Annotated[Any, _setting_of("include_properties", list[str] | str)] = None
    exclude_properties: Annotated[Any, _setting_of("exclude_properties", list[str] | str)] = None
    hash_properties: Annotated[Any, _setting_of("hash_properties", list[str] | str)] = None
    duckdb_path: Annotated[str, _said("duckdb_path")] = ""
    data_path: Annotated[str, _said("data_path")] = ""
    read_copy: Annotated[str, _said("read_copy")] = ""
    staging_folder: Annotated[str, _said("staging_folder")] = ""
    executor: Annotated[dg.ExecutorDefinition | None, _in_python("executor")] = None
    resources: Annotated[Mapping[str, Any] | None, _in_python("resources")] = None
    on_failure: Annotated[Any, _in_python("on_failure")] = None
    lookback_days: Annotated[int, _said("lookback_days")] = LOOKBACK_DAYS
    cron: Annotated[str, _said("cron")] = HOURLY
    freshness: Annotated[dg.FreshnessPolicy | None, _in_python("freshness")] = FRESHNESS
    owners: Annotated[list[str], _said("owners")] = Field(["team:data"])
    streams: Annotated[
        Sequence[Any],
        dg.Resolver(
            _streams,
            model_field_type=list[str],
            description=f"{_SAID['streams']} By name: {', '.join(stream.name for stream in STREAMS)}.",
        ),
    ] = STREAMS

    @classmethod
    @functools.cache
    def model(cls) -> type[BaseModel]:
        """What a defs.yaml is read into; Dagster quotes the input of its errors, whatever the model says of that."""
        model: type[BaseModel] = super().model()
        said: Any = {"quote_nothing": model_validator(mode="wrap")(_quote_nothing)}
        return create_model(model.__name__, __base__=model, __validators__=said, __doc__=model.__doc__)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the project, to be merged with all others."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return build_defs(schema=given.pop("schema_name"), **given)
