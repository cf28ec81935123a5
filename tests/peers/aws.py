"""Calls of AWS's own Python client, boto3: one job a line of JSON comes in, one answer a line goes out.

A job: `endpoint`, `region`, `id`, `secret`, `token` (or null), `service`, `operation` (`GenerateDataKey`) and
`parameters`. Bytes are base64 on both sides. An answer has `ok`, or `error` (the code), `message` and `status`.
"""

import base64
import datetime
import json
import sys

import botocore
import botocore.config
import botocore.exceptions
import botocore.session

SESSION = botocore.session.Session()
CLIENTS = {}


def client(job):
    names = ("service", "endpoint", "region", "id", "secret", "token")
    key = tuple(job.get(name) for name in names)
    if key not in CLIENTS:
        service, endpoint, region, id, secret, token = key
        CLIENTS[key] = SESSION.create_client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            aws_access_key_id=id,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=60),
        )
    return CLIENTS[key]


def snake(operation):
    return botocore.xform_name(operation)


def decoded(parameters, shape):
    """The parameters, with what the service's model calls a blob as bytes."""
    blobs = {name for name, member in shape.members.items() if member.type_name == "blob"} if shape else set()
    return {name: base64.b64decode(value) if name in blobs else value for name, value in parameters.items()}


def encoded(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: encoded(item) for name, item in value.items() if name != "ResponseMetadata"}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value


def run(job):
    made = client(job)
    operation = job["operation"]
    shape = made.meta.service_model.operation_model(operation).input_shape
    try:
        return {"ok": encoded(getattr(made, snake(operation))(**decoded(job["parameters"], shape)))}
    except botocore.exceptions.ClientError as error:
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return {"error": answer["Error"]["Code"], "message": answer["Error"].get("Message", ""), "status": status}
    except botocore.exceptions.BotoCoreError as error:
        return {"error": type(error).__name__, "message": str(error), "status": 0}


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
