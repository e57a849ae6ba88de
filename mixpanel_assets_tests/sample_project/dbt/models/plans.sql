select properties ->> '$.plan' as plan, count(*) as people from {{ source("mixpanel", "profiles") }} group by all
