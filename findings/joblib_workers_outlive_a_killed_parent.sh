#!/usr/bin/env bash
# joblib 1.6.0 (loky backend, Linux): worker processes outlive a parent that is killed outright (SIGKILL, as by the kernel when memory
# runs out, or by a scheduler). They finish the tasks that were handed to them and then wait, each with all that it has loaded: with torch,
# hundreds of megabytes, or a GPU's memory. Seen, of two workers, 20 seconds after the kill, with tasks of one second:
#     alive after 20 s: 2
# One would expect workers to notice that the other end of their pipes is gone.
set -euo pipefail
folder=$(mktemp -d)
pids() { find "$folder" -name 'worker-*' | sed 's/.*worker-//'; }
trap 'for pid in $(pids); do kill -9 "$pid" 2>/dev/null || true; done; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q joblib==1.6.0
cat > "$folder/train.py" <<'PY'
import os
import sys
import time

from joblib import Parallel, delayed


def run(folder):
    open(os.path.join(folder, f"worker-{os.getpid()}"), "w").close()
    time.sleep(1)


if __name__ == "__main__":
    Parallel(n_jobs=2)(delayed(run)(sys.argv[1]) for _ in range(100))
PY
"$folder/venv/bin/python" "$folder/train.py" "$folder" &
parent=$!
for _ in $(seq 200); do
    [ "$(pids | wc -l)" -ge 2 ] && break
    sleep 0.1
done
kill -9 "$parent"
wait "$parent" 2>/dev/null || true
sleep 20
alive=0
for pid in $(pids); do
    if kill -0 "$pid" 2>/dev/null; then alive=$((alive + 1)); fi
done
echo "alive after 20 s: $alive"
[ "$alive" -eq 2 ] || { echo "this has changed"; exit 1; }
