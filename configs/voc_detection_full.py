"""Object detection on PASCAL VOC: FCOS on ResNet-50 with FPN, VOC2007 + VOC2012 trainval -> VOC2007 test. Never run at this size.

    python run.py --config=configs/voc_detection_full.py --config.data.name=voc:DIR/VOCdevkit --config.initial=/data/sd --workdir=/data/det

`initial` is a finished run of the same trunk, such as configs/sd_imagenet.py with --config.model.name=resnet50; fcos_resnet101 takes a
resnet101. 24,816 steps of 16 images (there are 16,551), about as many as in MoCo's detectron2 configs, where a Faster R-CNN on an ImageNet
ResNet-50 has an AP50 of 81.3 % and an AP of 53.5 %: in VOC2007's form, here test_ap50_11point and test_ap_11point. Letterboxed 640 pixels,
the learning rate and its two drops are our choice. On a devkit with only one year:

    --config.data.voc.train="('VOC2012/train',)" --config.data.voc.test="('VOC2012/val',)"
"""

from configs import common


def get_config():
    config = common.get_voc_config("detection")
    config.epochs = 24  # of 1,034 steps
    config.eval_every = 4
    config.data.image_size = 640
    config.data.scales = (0.5, 1.5)
    config.data.voc.train = ("VOC2007/trainval", "VOC2012/trainval")
    config.data.voc.test = ("VOC2007/test",)
    config.model = {"name": "fcos_resnet50", "norm": "batch"}  # or frozen: the statistics of the loaded trunk; never with new weights
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.boundaries = (0.75, 0.92)
    config.schedule.warmup_epochs = 0.5
    return config
