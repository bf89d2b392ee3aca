"""Semantic segmentation of PASCAL VOC: DeepLabV3 on ResNet-50, VOC2012 trainaug -> val. Never run at this size.

    python run.py --config=configs/voc_segmentation_full.py --config.data.name=voc:DIR/VOCdevkit --config.initial=runs/sd --workdir=runs/voc

`initial` is a finished run of the same trunk, such as configs/sd_imagenet.py with --config.model.name=resnet50. The devkit needs the masks
of Hariharan et al. (ICCV 2011) in VOC2012/SegmentationClassAug, and the list ImageSets/Segmentation/trainaug.txt (10,582 images); val is
evaluated on VOC's own masks, in VOC2012/SegmentationClass. Crops are the paper's: at scale 1, an image's longer side has 513 pixels. The
optimizer and about 20,000 steps are those of mmsegmentation's DeepLabV3, which reports a mIoU of 76.9 % for ResNet-50 at output stride 16,
with larger images (512 pixels on the shorter side) and an auxiliary head. On a devkit with only VOC's own masks:

    --config.data.voc.train="('VOC2012/train',)" --config.data.voc.masks=SegmentationClass
"""

from configs import common


def get_config():
    config = common.get_voc_config("segmentation")
    config.epochs = 30  # of 661 steps
    config.eval_every = 5
    config.data.image_size = 513
    config.data.scales = (0.5, 2.0)
    config.data.voc.train = ("VOC2012/trainaug",)
    config.data.voc.test = ("VOC2012/val",)
    config.data.voc.masks = "SegmentationClassAug"
    config.model = {"name": "deeplab_resnet50", "output_stride": 16, "norm": "batch"}
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "poly"
    config.schedule.power = 0.9
    return config
