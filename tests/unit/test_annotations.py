"""MOT and UA-DETRAC ground truth as their benchmarks define it, on made-up lines and on real files where they lie."""

from pathlib import Path

import pytest

from skyshore.domain.errors import InvalidTask
from skyshore.domain.video import Detection
from skyshore.workload.annotations import read_annotations, read_mot, read_ua_detrac, write_mot

DATA = Path(__file__).parents[3] / "shared/data/video"


def real(name):
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is not on this machine (licensed test data, not shipped)")
    return (DATA / name).read_text()


def test_mot_15_frames_count_from_zero_and_boxes_have_corners():
    read = read_mot("1,1,10,20,30,40,1,-1,-1,-1\n3,1,11.5,20,30,40,1,-1,-1,-1\n")
    assert read.boxes == {
        0: (Detection("person", 1.0, 10, 20, 40, 60),),
        2: (Detection("person", 1.0, 11.5, 20, 41.5, 60),),
    }


def test_mot_16_ignores_distractors_and_leaves_cars_out():
    lines = ["1,1,0,0,10,10,1,1,1.0", "1,2,50,0,10,10,0,8,1", "1,3,90,0,10,10,1,3,1", "1,4,70,0,10,10,0,1,0.1"]
    read = read_mot("\n".join(lines))
    assert [box.x1 for box in read.boxes[0]] == [0]
    assert sorted(box.x1 for box in read.ignored[0]) == [50, 70]


def test_detections_are_judged_under_the_annotations_names():
    vehicles = read_ua_detrac(DETRAC)
    found = [Detection(label, 0.9, 0, 0, 5, 5) for label in ("bus", "person", "truck")]
    assert [box.label for box in vehicles.renamed(found)] == ["vehicle", "vehicle"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,1,10,20,30", "5 fields"),
        ("0,1,10,20,30,40,1,-1,-1,-1", "the first frame is 1"),
        ("1,1,10,20,-3,40,1,-1,-1,-1", "width"),
        ("1,1,nan,20,3,40,1,-1,-1,-1", "finite"),
        ("one,1,10,20,3,40,1,-1,-1,-1", "line 1"),
        ("", "no pedestrian"),
    ],
)
def test_a_bad_mot_line_is_named(line, said):
    with pytest.raises(InvalidTask, match=said):
        read_mot(line)


DETRAC = """<?xml version="1.0" encoding="utf-8"?>
<sequence name="MVI_1"><ignored_region><box left="1" top="2" width="3" height="4"/></ignored_region>
<frame density="1" num="2"><target_list><target id="1">
<box left="10" top="20" width="30.5" height="40"/><attribute vehicle_type="van"/>
</target></target_list></frame></sequence>"""


def test_ua_detrac_regions_hold_for_every_frame():
    read = read_annotations("MVI_1.xml", DETRAC)
    assert read.source == "UA-DETRAC MVI_1"
    assert read.boxes == {1: (Detection("vehicle", 1.0, 10, 20, 40.5, 60),)}
    assert set(read.ignored) == {0, 1}
    assert read.ignored[0] == (Detection("vehicle", 1.0, 1, 2, 4, 6),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<sequence>",
        "<sequence/>",
        DETRAC.replace('left="10"', 'left="ten"'),
        DETRAC.replace(' top="20"', ""),
        '<!DOCTYPE x [<!ENTITY a "aaaa">]><sequence/>',
    ],
)
def test_what_is_no_ua_detrac_file_is_refused(text):
    with pytest.raises(InvalidTask):
        read_ua_detrac(text)


def test_other_files_are_refused_by_name():
    with pytest.raises(InvalidTask, match="neither MOT"):
        read_annotations("truth.json", "{}")


def test_written_mot_reads_back_as_its_boxes():
    boxes = (Detection("person", 0.75, 1.25, 2, 11.25, 22),)
    text = write_mot([(4, boxes)])
    assert text == "5,-1,1.25,2.00,10.00,20.00,0.7500,-1,-1,-1\n"
    (read,) = read_mot(text).boxes[4]
    assert (read.x1, read.y1, read.x2, read.y2) == (1.25, 2, 11.25, 22)


@pytest.mark.parametrize(
    ("name", "frames", "boxes"), [("TUD-Campus_gt.txt", 71, 359), ("TUD-Stadtmitte_gt.txt", 179, 1156)]
)
def test_real_mot_files(name, frames, boxes):
    read = read_annotations(name, real(name))
    assert (len(read.boxes), sum(map(len, read.boxes.values()))) == (frames, boxes)


def test_real_ua_detrac_file():
    read = read_annotations("detrac_sample.xml", real("detrac_sample.xml"))
    assert read.source == "UA-DETRAC MVI_39031"
    assert len(read.ignored[0]) == 3
    first = read.boxes[0][0]
    assert (first.x1, first.y1, first.x2) == (745.6, 357.33, pytest.approx(745.6 + 148.2))
