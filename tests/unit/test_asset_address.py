"""``assets_url``: what it may say, and what is told of what it may not."""

from pathlib import Path

import pytest

from calotype.assets.address import Bucket, parse
from calotype.assets.port import Misconfigured


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("/srv/images", "/srv/images"),
        ("images", "images"),
        ("file:///srv/my%20images", "/srv/my images"),
    ],
)
def test_a_path_or_a_file_url_is_a_folder(url: str, folder: str) -> None:
    assert parse(url) == Path(folder)


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("s3://photos", Bucket("s3", "photos", "", {})),
        ("s3://photos/", Bucket("s3", "photos", "", {})),
        ("gs://photos/team/a", Bucket("gs", "photos", "team/a", {})),
        ("az://photos/a?account=mine", Bucket("az", "photos", "a", {"account": "mine"})),
        (
            "s3://photos?endpoint=http://127.0.0.1:9000&region=auto&style=path",
            Bucket(
                "s3",
                "photos",
                "",
                {"endpoint": "http://127.0.0.1:9000", "region": "auto", "style": "path"},
            ),
        ),
    ],
)
def test_a_cloud_store_is_a_bucket_a_prefix_and_options(url: str, bucket: Bucket) -> None:
    assert parse(url) == bucket


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("ftp://photos", "there is no asset store 'ftp'"),
        ("https://s3.example.com/photos", "write a folder, s3://bucket/prefix"),
        ("s3://", "write s3://<bucket>/<prefix>"),
        ("s3://photos:9000/a", "a host goes into the option endpoint"),
        ("s3://key:hushhush@photos", "take them out"),
        ("s3://photos?secret_access_key=hushhush", "Credentials go into the vendor's own"),
        ("s3://photos?region=", "the option region needs one value"),
        ("s3://photos?region=a&region=b", "the option region needs one value"),
        ("s3://photos?region", "is no URL"),
        ("s3://photos?endpoint=s3.example.com", "the option endpoint is a URL"),
        ("s3://photos?endpoint=https://", "the option endpoint is a URL"),
        ("s3://photos?endpoint=http://[", "the option endpoint is a URL"),
        ("s3://photos?endpoint=http://user:hushhush@host", "take them out"),
        ("s3://photos?endpoint=http://hushhush@host", "take them out"),
        ("s3://photos?endpoint=http://user%3Ahushhush%40host", "take them out"),
        ("s3://photos?endpoint=https://host?key=hushhush", "behind ? or #"),
        ("s3://photos?endpoint=https://host%23hushhush", "behind ? or #"),
        ("s3://photos?style=new", "path or virtual"),
        ("gs://photos?region=eu", "there are endpoint"),
        ("az://photos/a//b", "the prefix is no path"),
        ("s3://photos/../b", "the prefix is no path"),
        ("file://host/a", "file:///path/to/folder"),
        ("s3://[", "is no URL"),
    ],
)
def test_anything_else_is_refused_with_the_cure_and_without_secrets(url: str, cure: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse(url)
    assert cure in str(caught.value)
    assert "hushhush" not in str(caught.value)
    assert str(caught.value).endswith(".")
