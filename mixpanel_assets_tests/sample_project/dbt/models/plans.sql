{{ config(materialized="table") }}

select project, properties ->> '$.plan' as plan, count(*) as people
from (
    select 'us' as project, properties from {{ source("mixpanel", "profiles") }}
    union all
    select 'eu', properties from {{ source("mixpanel_eu", "profiles") }}
)
group by all
