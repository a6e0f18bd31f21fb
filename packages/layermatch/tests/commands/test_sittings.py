import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from layermatch.commands.sittings import Sittings
from scarce_common_utils.errors import UserError


@pytest.mark.parametrize("text", ['{"a": 1}', "{}", "12.5", '["a"]', '""'])
def test_what_is_no_list_of_seconds_is_refused_with_its_path(text, tmp_path):
    Path(tmp_path, "sittings.json").write_text(text)
    run = SimpleNamespace(path=tmp_path, read_json=lambda name: json.loads(Path(tmp_path, name).read_text()))
    with pytest.raises(UserError, match=r"sittings\.json holds no list of seconds. Remove it"):
        Sittings(run, began=0.0)
